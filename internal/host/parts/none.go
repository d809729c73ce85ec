//go:build !embed_parts

package parts

import "io/fs"

// embedded has no parts: they are files.
var embedded fs.FS
