//go:build sigstore

// Command bundles writes bundles of an image and a statement, good ones and others, for
// TestKeyless:
//
//	bundles FOLDER IMAGE STATEMENT IDENTITY ISSUER
//
// In the folder are then trusted_root.json and, by the name of what is wrong with them,
// NAME.file and NAME.statement.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"

	"github.com/thurward/thurward/test/release/authority"
)

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: bundles FOLDER IMAGE STATEMENT IDENTITY ISSUER")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(folder, imageFile, statementFile, identity, issuer string) error {
	image, err := os.ReadFile(imageFile)
	if err != nil {
		return err
	}
	statement, err := os.ReadFile(statementFile)
	if err != nil {
		return err
	}
	own, err := authority.New()
	if err != nil {
		return err
	}
	other, err := authority.New()
	if err != nil {
		return err
	}
	root, err := own.Trusted.MarshalJSON()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "trusted_root.json"), root, 0o644); err != nil {
		return err
	}
	valid, expired := time.Now().Add(5*time.Minute), time.Now().Add(48*time.Hour)
	noLog := func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries = nil }
	noTime := func(b *protobundle.Bundle) {
		noLog(b)
		b.VerificationMaterial.TimestampVerificationData = nil
	}
	for name, c := range map[string]struct {
		by               *authority.Authority
		identity, issuer string
		at               time.Time
		change           func(b *protobundle.Bundle)
	}{
		"good":      {own, identity, issuer, valid, nil},
		"identity":  {own, "mallory@example.com", issuer, valid, nil},
		"issuer":    {own, identity, "https://example.com", valid, nil},
		"expired":   {own, identity, issuer, expired, nil},
		"authority": {other, identity, issuer, valid, nil},
		"log":       {own, identity, issuer, valid, noLog},
		"time":      {own, identity, issuer, valid, noTime},
	} {
		for kind, sign := range map[string]func() ([]byte, error){
			"file":      func() ([]byte, error) { return c.by.File(c.identity, c.issuer, image, c.at) },
			"statement": func() ([]byte, error) { return c.by.Statement(c.identity, c.issuer, statement, c.at) },
		} {
			b, err := sign()
			if err == nil && c.change != nil {
				b, err = authority.Change(b, c.change)
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(folder, name+"."+kind), b, 0o644)
			}
			if err != nil {
				return fmt.Errorf("%s.%s: %w", name, kind, err)
			}
		}
	}
	return nil
}
