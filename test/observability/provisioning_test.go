package observability

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// What a file that provisions Grafana may have, by our own reading of its documentation
// (administration/provisioning, datasources/prometheus, datasources/loki, as of 13.2): Grafana
// passes over a key that it does not know, and its program is not at hand here.
type (
	sources struct {
		APIVersion int      `yaml:"apiVersion"`
		Sources    []source `yaml:"datasources"`
		Delete     []struct {
			Name  string
			OrgID int `yaml:"orgId"`
		} `yaml:"deleteDatasources"`
		Prune bool
	}
	source struct {
		Name, Type, UID, Access, URL, User, Database string
		OrgID                                        int    `yaml:"orgId"`
		BasicAuth                                    bool   `yaml:"basicAuth"`
		BasicAuthUser                                string `yaml:"basicAuthUser"`
		IsDefault                                    bool   `yaml:"isDefault"`
		Version                                      int
		Editable                                     bool
		JSON                                         yaml.Node         `yaml:"jsonData"`
		Secure                                       map[string]string `yaml:"secureJsonData"`
	}
	prometheusData struct {
		TimeInterval string `yaml:"timeInterval"`
		QueryTimeout string `yaml:"queryTimeout"`
		HTTPMethod   string `yaml:"httpMethod"`
		ManageAlerts bool   `yaml:"manageAlerts"`
	}
	lokiData struct {
		MaxLines      string         `yaml:"maxLines"`
		DerivedFields []derivedField `yaml:"derivedFields"`
	}
	derivedField struct {
		Name, URL       string
		MatcherType     string `yaml:"matcherType"`
		MatcherRegex    string `yaml:"matcherRegex"`
		DatasourceUID   string `yaml:"datasourceUid"`
		URLDisplayLabel string `yaml:"urlDisplayLabel"`
	}
	providers struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Name, Type, Folder string
			OrgID              int    `yaml:"orgId"`
			FolderUID          string `yaml:"folderUid"`
			DisableDeletion    bool   `yaml:"disableDeletion"`
			AllowUIUpdates     bool   `yaml:"allowUiUpdates"`
			Interval           int    `yaml:"updateIntervalSeconds"`
			Options            struct {
				Path                      string
				FoldersFromFilesStructure bool `yaml:"foldersFromFilesStructure"`
			}
		}
	}
)

// only decodes one document, all of whose keys must be known.
func only(b []byte, into any) error {
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		return err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("after the document: %v", err)
	}
	return nil
}

var interval = regexp.MustCompile(`^[1-9][0-9]*(ms|s|m|h)$`)

// checkSources returns what is wrong with a file of data sources, and the uids that it has.
func checkSources(b []byte) (uids map[string]string, err error) {
	var f sources
	if err := only(b, &f); err != nil {
		return nil, err
	}
	if f.APIVersion != 1 {
		return nil, fmt.Errorf("apiVersion %d", f.APIVersion)
	}
	uids = map[string]string{}
	names, defaults := map[string]bool{}, 0
	for _, s := range f.Sources {
		u, err := url.Parse(s.URL)
		switch {
		case err != nil || u.Scheme != "http" || u.Port() == "":
			return nil, fmt.Errorf("%s: url %q", s.Name, s.URL)
		case s.Name == "" || names[s.Name]:
			return nil, fmt.Errorf("name %q", s.Name)
		case !regexp.MustCompile(`^[a-zA-Z0-9_-]{1,40}$`).MatchString(s.UID) || uids[s.UID] != "":
			return nil, fmt.Errorf("%s: uid %q", s.Name, s.UID)
		case s.Access != "proxy": // direct is no more
			return nil, fmt.Errorf("%s: access %q", s.Name, s.Access)
		}
		uids[s.UID], names[s.Name] = s.Type, true
		if s.IsDefault {
			defaults++
		}
	}
	if defaults != 1 {
		return nil, fmt.Errorf("%d defaults", defaults)
	}
	for _, s := range f.Sources {
		if err := s.checkData(uids); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return uids, nil
}

// checkData looks at what is for one type of source.
func (s *source) checkData(uids map[string]string) error {
	data, err := yaml.Marshal(&s.JSON)
	if err != nil {
		return err
	}
	switch s.Type {
	case "prometheus":
		var d prometheusData
		if err := only(data, &d); err != nil {
			return err
		}
		if !interval.MatchString(d.TimeInterval) {
			return fmt.Errorf("timeInterval %q", d.TimeInterval)
		}
	case "loki":
		var d lokiData
		if err := only(data, &d); err != nil {
			return err
		}
		for _, f := range d.DerivedFields {
			_, err := regexp.Compile(f.MatcherRegex)
			switch {
			case err != nil || f.MatcherRegex == "" || f.Name == "":
				return fmt.Errorf("derived field %q: %v", f.Name, err)
			case f.MatcherType != "label" && f.MatcherType != "regex":
				return fmt.Errorf("matcherType %q", f.MatcherType)
			case uids[f.DatasourceUID] == "":
				return fmt.Errorf("datasourceUid %q is no source's", f.DatasourceUID)
			case f.URL != "$${__value.raw}": // of one $ Grafana takes what follows for a variable of its environment
				return fmt.Errorf("url %q", f.URL)
			}
		}
	case "tempo":
		if !s.JSON.IsZero() {
			return errors.New("jsonData")
		}
	default:
		return fmt.Errorf("type %q", s.Type)
	}
	return nil
}

// checkProviders returns what is wrong with a file of folders of dashboards, each of which
// must be one of the mounted ones.
func checkProviders(b []byte, mounted string) error {
	var f providers
	if err := only(b, &f); err != nil {
		return err
	}
	if f.APIVersion != 1 || len(f.Providers) == 0 {
		return fmt.Errorf("apiVersion %d, %d providers", f.APIVersion, len(f.Providers))
	}
	for _, p := range f.Providers {
		if p.Name == "" || p.Type != "file" || !strings.Contains(mounted, ":"+p.Options.Path+":") {
			return fmt.Errorf("%+v", p)
		}
	}
	return nil
}

// TestProvisioning: Grafana gets what its documentation has, and nothing that it would pass
// over; the dashboard's queries are for data sources that are provided, by their types.
func TestProvisioning(t *testing.T) {
	const folder = deploy + "/grafana/provisioning"
	b := read(t, folder+"/datasources/datasources.yaml")
	uids, err := checkSources(b)
	if err != nil {
		t.Fatal(err)
	}
	mounted := string(read(t, deploy+"/compose.yaml"))
	p := read(t, folder+"/dashboards/dashboards.yaml")
	if err := checkProviders(p, mounted); err != nil {
		t.Error(err)
	}
	for what, c := range map[string][2]string{
		"a key that is not known":       {"isDefault", "default"},
		"a key of a type of source":     {"timeInterval", "timeinterval"},
		"a key of a derived field":      {"datasourceUid", "dataSourceUid"},
		"a source that is not there":    {"datasourceUid: tempo", "datasourceUid: jaeger"},
		"a variable of the environment": {"$${", "${"},
		"two of one uid":                {"uid: loki", "uid: prometheus"},
		"a way in that is no more":      {"access: proxy", "access: direct"},
		"another version":               {"apiVersion: 1", "apiVersion: 2"},
		"a kind of match":               {"matcherType: label", "matcherType: labels"},
		"a time without a unit":         {"timeInterval: 10s", "timeInterval: 10"},
	} {
		bad := strings.Replace(string(b), c[0], c[1], 1)
		if bad == string(b) {
			t.Errorf("%s: there is no %s", what, c[0])
		}
		if _, err := checkSources([]byte(bad)); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	for what, c := range map[string][2]string{
		"a key that is not known":        {"allowUiUpdates", "allowUIUpdates"},
		"a folder that is not mounted":   {"/var/lib/grafana/dashboards", "/var/lib/grafana/dashboard"},
		"another way to have dashboards": {"type: file", "type: git"},
	} {
		if err := checkProviders([]byte(strings.Replace(string(p), c[0], c[1], 1)), mounted); err == nil {
			t.Errorf("dashboards: %s is taken", what)
		}
	}
	var board any
	if err := json.Unmarshal(read(t, deploy+"/grafana/dashboards/thurward.json"), &board); err != nil {
		t.Fatal(err)
	}
	n := 0
	each(board, func(m map[string]any) {
		d, _ := m["datasource"].(map[string]any)
		uid, _ := d["uid"].(string)
		if uid == "" || strings.HasPrefix(uid, "-- ") {
			return
		}
		n++
		if uids[uid] == "" || uids[uid] != d["type"] {
			t.Errorf("%v: a data source %q of type %v is not provided", m["title"], uid, d["type"])
		}
	})
	if n < 20 {
		t.Errorf("only %d data sources in the dashboard", n)
	}
}

// each calls f with each object of a document.
func each(v any, f func(map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		f(v)
		for _, e := range v {
			each(e, f)
		}
	case []any:
		for _, e := range v {
			each(e, f)
		}
	}
}
