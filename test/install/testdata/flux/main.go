// Command flux checks Flux's resources in files of YAML by Flux's own types: unknown
// fields and wrong kinds of values are refused. Other resources are left out, and counted.
package main

import (
	"bytes"
	"fmt"
	"os"

	kustomize "github.com/fluxcd/kustomize-controller/api/v1"
	source "github.com/fluxcd/source-controller/api/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	checked, others := 0, 0
	for _, path := range os.Args[1:] {
		b, err := os.ReadFile(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for i, doc := range bytes.Split(b, []byte("\n---\n")) {
			var kind struct {
				APIVersion string `json:"apiVersion"`
				Kind       string `json:"kind"`
			}
			if err := yaml.Unmarshal(doc, &kind); err != nil {
				fmt.Fprintf(os.Stderr, "%s, document %d: %v\n", path, i+1, err)
				os.Exit(1)
			}
			var into any
			switch kind.APIVersion + " " + kind.Kind {
			case source.GroupVersion.String() + " " + source.OCIRepositoryKind:
				into = &source.OCIRepository{}
			case kustomize.GroupVersion.String() + " " + kustomize.KustomizationKind:
				into = &kustomize.Kustomization{}
			default:
				others++
				continue
			}
			if err := yaml.UnmarshalStrict(doc, into); err != nil {
				fmt.Fprintf(os.Stderr, "%s, document %d: %v\n", path, i+1, err)
				os.Exit(1)
			}
			checked++
		}
	}
	fmt.Printf("%d of Flux's resources are right, %d are others'\n", checked, others)
}
