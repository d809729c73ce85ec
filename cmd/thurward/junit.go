package main

import (
	"encoding/xml"
	"fmt"
	"io"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/prove"
	"github.com/thurward/thurward/internal/shared/printable"
)

// The elements of a JUnit report, as CI systems read them.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		File    string        `xml:"file,attr"`
		Line    int           `xml:"line,attr"`
		Failure *junitFailure `xml:"failure,omitempty"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
	}
)

// showJUnit prints a JUnit report of a policy's tests and statements.
func showJUnit(w io.Writer, p *policy.Policy, results []explain.TestResult, proofs []prove.Result) error {
	tests, statements := junitSuite{Name: "tests"}, junitSuite{Name: "statements"}
	add := func(s *junitSuite, class, name string, line int, wrong, kind string) {
		c := junitCase{Class: class, Name: printable.String(name, maxLine), File: p.File, Line: line}
		if wrong != "" {
			c.Failure = &junitFailure{Message: printable.String(wrong, maxLine), Type: kind}
			s.Failures++
		}
		s.Tests++
		s.Cases = append(s.Cases, c)
	}
	for _, r := range results {
		wrong := r.Wrong
		if wrong != "" {
			wrong = fmt.Sprintf("%v: %s", r.Test.Flow, wrong)
		}
		add(&tests, "tests", r.Test.Name, r.Test.Line, wrong, "test-failed")
	}
	for _, r := range proofs {
		wrong := r.Wrong
		if r.Flow != nil {
			wrong = fmt.Sprintf("%v: %s", r.Flow, wrong)
		}
		s := r.Statement
		add(&statements, s.Word(), s.Name, s.Line, wrong, s.Word()+"-failed")
	}
	b, err := xml.MarshalIndent(junitSuites{Suites: []junitSuite{tests, statements}}, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append([]byte(xml.Header), append(b, '\n')...)) // a name that is not valid XML is escaped
	return err
}
