package importer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Byte order marks.
var (
	markUTF8 = []byte("\xef\xbb\xbf")
	markLE   = []byte("\xff\xfe")
	markBE   = []byte("\xfe\xff")
)

// plain returns a file in UTF-8 without a byte order mark. Windows' editors write one, and its shells write
// what a program prints as UTF-16.
func plain(src []byte) ([]byte, error) {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(src, markUTF8):
		return src[len(markUTF8):], nil
	case bytes.HasPrefix(src, markLE):
		order = binary.LittleEndian
	case bytes.HasPrefix(src, markBE):
		order = binary.BigEndian
	case bytes.IndexByte(src[:min(len(src), 1024)], 0) >= 0:
		return nil, errors.New("it has zero bytes: not a text (UTF-16 without a byte order mark is not read)")
	default:
		return src, nil
	}
	if len(src)%2 != 0 {
		return nil, fmt.Errorf("UTF-16 of %d bytes: the last character is cut", len(src))
	}
	out := make([]byte, 0, len(src)/2)
	for i := 2; i < len(src); i += 2 {
		r := rune(order.Uint16(src[i:]))
		if utf16.IsSurrogate(r) && i+4 <= len(src) {
			r = utf16.DecodeRune(r, rune(order.Uint16(src[i+2:])))
			i += 2
		}
		out = utf8.AppendRune(out, r)
	}
	return out, nil
}

// charsetReader reads what an XML document says that it is written in. Names and comments may have any
// character; what rules mean is in ASCII, so that the rest of an eight-bit set is read as Latin-1.
func charsetReader(label string, in io.Reader) (io.Reader, error) {
	switch strings.ToLower(label) {
	case "utf-16": // it has been decoded by its byte order mark
		return in, nil
	case "us-ascii", "iso-8859-1", "iso-8859-15", "windows-1252":
		return &latin1{in: in}, nil
	}
	return nil, fmt.Errorf("it is written in %s: want UTF-8", shorten(label))
}

// latin1 turns Latin-1 into UTF-8.
type latin1 struct {
	in   io.Reader
	left []byte
}

func (l *latin1) Read(b []byte) (int, error) {
	if len(l.left) == 0 {
		var buf [4096]byte
		n, err := l.in.Read(buf[:])
		for _, c := range buf[:n] {
			l.left = utf8.AppendRune(l.left, rune(c))
		}
		if n == 0 {
			return 0, err
		}
	}
	n := copy(b, l.left)
	l.left = l.left[n:]
	return n, nil
}
