//go:build !sigstore

// Command bundles needs the build tag sigstore.
package main

func main() {}
