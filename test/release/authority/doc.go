//go:build !sigstore

// Package authority is empty without the build tag sigstore.
package authority
