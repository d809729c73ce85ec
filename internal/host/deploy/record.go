package deploy

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"
)

// An Entry is an image that is, or was, to run.
type Entry struct {
	Image  string    `json:"image"`  // SHA-256 of the file, in hexadecimal
	Policy string    `json:"policy"` // that of its rules.yaml; "" if it is not known
	Size   int64     `json:"size"`   // bytes
	Since  time.Time `json:"since"`  // when it became the current one
}

// A Failure is a change that was taken back, or did not happen.
type Failure struct {
	Image string    `json:"image"`
	When  time.Time `json:"when"`
	Why   string    `json:"why"`
}

// A Record says which image is to run. The zero Record is that of a folder without one.
type Record struct {
	Current  Entry    `json:"current"`
	Previous *Entry   `json:"previous,omitempty"` // what ran before it
	Failed   *Failure `json:"failed,omitempty"`   // since Current became current
}

// stored is the file's form.
type stored struct {
	Version int `json:"version"`
	Record
}

// formVersion is that of the record's file.
const formVersion = 1

// maxRecord is the largest record in bytes.
const maxRecord = 64 << 10

func (r *Record) encode() ([]byte, error) {
	b, err := json.MarshalIndent(stored{formVersion, *r}, "", "  ")
	return append(b, '\n'), err
}

func decode(b []byte) (Record, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var s stored
	if err := d.Decode(&s); err != nil {
		return Record{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Record{}, errors.New("something follows the record")
	}
	if s.Version != formVersion {
		return Record{}, fmt.Errorf("form %d of the record; this thurward knows form %d", s.Version, formVersion)
	}
	for _, e := range []*Entry{&s.Current, s.Previous} {
		if e == nil {
			continue
		}
		if err := e.check(); err != nil {
			return Record{}, err
		}
	}
	return s.Record, nil
}

// check refuses what would be the name of another file.
func (e *Entry) check() error {
	if b, err := hex.DecodeString(e.Image); err != nil || len(b) != 32 || hex.EncodeToString(b) != e.Image {
		return fmt.Errorf("%.80q is no SHA-256 of an image", e.Image)
	}
	return nil
}

// path is where the image lies in the folder.
func (e *Entry) path() string { return imagePath(e.Image) }

func imagePath(digest string) string { return images + "/" + digest + imageEnd }

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,30}[a-z0-9])?$`)

// CheckName returns an error for what cannot be a firewall's name: it is part of a path, of
// a unit's name and of a command line.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("%.80q is not a name of a firewall (want up to 32 of a-z, 0-9, '.', '_' and '-', with a letter or a digit at both ends)", name)
	}
	return nil
}

// Home is where the folders of all firewalls are.
const Home = "/var/lib/thurward"
