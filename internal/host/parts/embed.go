//go:build embed_parts

package parts

import (
	"embed"
	"io/fs"
)

// make puts the parts into the folder before it compiles a command line for release.
//
//go:embed embedded
var files embed.FS

var embedded fs.FS = files
