// Package formats checks what we write by what the owners of the formats publish as Go
// modules: the dashboard by Grafana's types, the compose file by docker compose's reader, and
// SARIF by its schema. They are a module of their own: make formats.
package formats

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

const deploy = "../../deploy/observability"

// strict decodes a dashboard as Grafana's types have it, and returns what is wrong: fields
// that they do not know, in panels and queries, too, and values of other types. Fields that are
// missing are not: Grafana has defaults for what its types call required.
func strict(b []byte) (wrong []string) {
	var d dashboard.Dashboard
	err := d.UnmarshalJSONStrict(b)
	if all, ok := errors.AsType[cog.BuildErrors](err); ok {
		for _, e := range all {
			if !strings.HasSuffix(e.Message, "required field is missing from input") {
				wrong = append(wrong, e.Error())
			}
		}
	} else if err != nil {
		wrong = append(wrong, err.Error())
	}
	if err := d.Validate(); err != nil {
		wrong = append(wrong, err.Error())
	}
	return wrong
}

// TestGrafanaTakesTheDashboard: and not one with a mistake.
func TestGrafanaTakesTheDashboard(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	b, err := os.ReadFile(deploy + "/grafana/dashboards/thurward.json")
	if err != nil {
		t.Fatal(err)
	}
	if wrong := strict(b); wrong != nil {
		t.Errorf("%q", wrong)
	}
	for what, c := range map[string][2]string{
		"a field of a panel":            {`"gridPos"`, `"gridpos"`},
		"a field of a query":            {`"legendFormat"`, `"legendformat"`},
		"an option of a panel":          {`"legend":`, `"legends":`},
		"a height that is no number":    {`"h": 8`, `"h": "8"`},
		"a field of the dashboard":      {`"refresh"`, `"refreshing"`},
		"a description that is no text": {`"description": "From the events`, `"description": 1, "x": "`},
	} {
		bad := bytes.Replace(b, []byte(c[0]), []byte(c[1]), 1)
		if bytes.Equal(bad, b) {
			t.Errorf("%s: the dashboard has no %s", what, c[0])
		} else if len(strict(bad)) == 0 {
			t.Errorf("%s: nobody notices", what)
		}
	}
}

// TestComposeTakesTheFile: docker compose's own loader reads the file; services depend on
// services that there are, and volumes are declared.
func TestComposeTakesTheFile(t *testing.T) {
	load := func(name string) ([]string, error) {
		o, err := cli.NewProjectOptions([]string{name}, cli.WithResolvedPaths(true))
		if err != nil {
			return nil, err
		}
		p, err := o.LoadProject(context.Background())
		if err != nil {
			return nil, err
		}
		return p.ServiceNames(), nil
	}
	names, err := load(deploy + "/compose.yaml")
	if want := []string{"alertmanager", "collector", "grafana", "loki", "prometheus", "tempo"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%v, %v", names, err)
	}
	b, err := os.ReadFile(deploy + "/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string][2]string{
		"an unknown key":         {"restart:", "restarts:"},
		"an unknown dependency":  {"depends_on: [prometheus", "depends_on: [prometheuses"},
		"an undeclared volume":   {"volumes: { collector: {}, ", "volumes: { "},
		"a port that is no port": {"127.0.0.1:9090:9090", "127.0.0.1:x:9090"},
	} {
		file := t.TempDir() + "/compose.yaml"
		bad := strings.Replace(string(b), c[0], c[1], 1)
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := load(file); bad == string(b) || err == nil {
			t.Errorf("%s: nobody notices", what)
		}
	}
}
