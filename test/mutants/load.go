package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// A source is a package whose code is changed.
type source struct {
	path  string // import path
	short string // below internal/
	dir   string
	name  string
	files []*file
	info  *types.Info
	types *types.Package
	conf  types.Config
}

// A file is one of its files, with the changes made to it.
type file struct {
	path string
	text []byte
	ast  *ast.File
	edit edits
	skip map[int]bool // lines that cannot be changed
}

// load parses and checks the packages.
func load(fset *token.FileSet, short []string) ([]*source, error) {
	args := []string{"list", "-export", "-deps", "-json=ImportPath,Dir,Name,GoFiles,Export,DepOnly"}
	for _, s := range short {
		args = append(args, "./internal/"+s)
	}
	args = append(args, helperImports...)
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	type listed struct {
		ImportPath, Dir, Name, Export string
		GoFiles                       []string
		DepOnly                       bool
	}
	export := map[string]string{}
	var wanted []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		export[p.ImportPath] = p.Export
		if !p.DepOnly && !slices.Contains(helperImports, p.ImportPath) {
			wanted = append(wanted, p)
		}
	}
	imp := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		f, ok := export[path]
		if !ok || f == "" {
			return nil, fmt.Errorf("no export data for %s", path)
		}
		return os.Open(f)
	})
	var all []*source
	for _, p := range wanted {
		s := &source{path: p.ImportPath, dir: p.Dir, name: p.Name}
		if s.short, err = filepath.Rel(filepath.Join(root(), "internal"), p.Dir); err != nil {
			return nil, err
		}
		var parsed []*ast.File
		for _, name := range p.GoFiles {
			f := &file{path: filepath.Join(p.Dir, name), skip: map[int]bool{}}
			if f.text, err = os.ReadFile(f.path); err != nil {
				return nil, err
			}
			if f.ast, err = parser.ParseFile(fset, f.path, f.text, parser.ParseComments|parser.SkipObjectResolution); err != nil {
				return nil, err
			}
			s.files = append(s.files, f)
			parsed = append(parsed, f.ast)
		}
		s.info = &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}, Implicits: map[ast.Node]types.Object{}}
		s.conf = types.Config{Importer: imp, Sizes: types.SizesFor("gc", "amd64")}
		if s.types, err = s.conf.Check(p.ImportPath, fset, parsed, s.info); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// root is the folder of the module.
func root() string {
	dir, err := os.Getwd()
	if err != nil {
		return "."
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d
		}
		if d == filepath.Dir(d) {
			return dir
		}
	}
}
