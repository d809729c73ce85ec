package provenance

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// A BOM is CycloneDX's list of what an image is made from (ECMA-424, version 1.6).
type BOM struct {
	Format     string      `json:"bomFormat"`
	Spec       string      `json:"specVersion"`
	Version    int         `json:"version"`
	Metadata   BOMMetadata `json:"metadata"`
	Components []Component `json:"components"`
}

// BOMMetadata names what the list is of.
type BOMMetadata struct {
	Component Component `json:"component"`
}

// A Component is a package of Go.
type Component struct {
	Ref        string     `json:"bom-ref,omitempty"`
	Type       string     `json:"type"`
	Name       string     `json:"name"` // the package's path
	Version    string     `json:"version,omitempty"`
	PURL       string     `json:"purl,omitempty"`
	Properties []Property `json:"properties,omitempty"`
}

// A Property says into which part a package is linked.
type Property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// PropertyPart is the name of the property that says into which part of the image a
// package is linked: kernel or program.
const PropertyPart = "thurward:part"

const ownModule = "github.com/thurward/thurward"

// SBOM lists packages, those of the kernel and those of the firewall's program. Versions
// of modules are those that the program tells.
func SBOM(name, version string, program []byte, kernel, firewall []string) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return nil, fmt.Errorf("program: %w", err)
	}
	parts := map[string][]string{}
	for _, p := range kernel {
		parts[p] = append(parts[p], "kernel")
	}
	for _, p := range firewall {
		parts[p] = append(parts[p], "program")
	}
	b := BOM{Format: "CycloneDX", Spec: "1.6", Version: 1,
		Metadata: BOMMetadata{Component{Type: "firmware", Name: name, Version: version}}, Components: []Component{}}
	for path, in := range parts {
		c := Component{Type: "library", Name: path, Ref: path}
		module := "std"
		c.Version = strings.TrimPrefix(info.GoVersion, "go")
		if path == ownModule || strings.HasPrefix(path, ownModule+"/") {
			module, c.Version = ownModule, version
		}
		for _, d := range info.Deps {
			if path == d.Path || strings.HasPrefix(path, d.Path+"/") {
				module, c.Version = d.Path, d.Version
			}
		}
		c.PURL = "pkg:golang/" + module + "@" + c.Version
		if sub := strings.TrimPrefix(strings.TrimPrefix(path, module), "/"); sub != "" {
			c.PURL += "#" + sub
		}
		for _, p := range in {
			c.Properties = append(c.Properties, Property{PropertyPart, p})
		}
		b.Components = append(b.Components, c)
	}
	slices.SortFunc(b.Components, func(a, b Component) int { return strings.Compare(a.Name, b.Name) })
	out, err := json.MarshalIndent(b, "", "  ")
	return append(out, '\n'), err
}

// Packages returns the packages that a list has.
func Packages(sbom []byte) (map[string]bool, error) {
	var b BOM
	if err := json.Unmarshal(sbom, &b); err != nil {
		return nil, fmt.Errorf("not a list in CycloneDX: %w", err)
	}
	if b.Format != "CycloneDX" {
		return nil, fmt.Errorf("not a list in CycloneDX: its format is %q", b.Format)
	}
	all := map[string]bool{}
	for _, c := range b.Components {
		all[c.Name] = true
	}
	return all, nil
}
