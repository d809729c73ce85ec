package fqdn

// AppendShort appends a name in wire form as text that has at most max bytes, which
// escapes may make it exceed. Then labels are left out at its beginning, and three
// dots, which stand in no name, say so: the end of a name tells whose it is.
func AppendShort(b, name []byte, max int) []byte {
	from := len(b)
	b = AppendText(b, name)
	if len(b)-from <= max {
		return b
	}
	b = append(b[:from], "..."...)
	for len(name) > 0 && 3+textLen(name) > max {
		name = name[1+int(name[0]):]
	}
	return AppendText(b, name)
}

// textLen is how long the text of a name is.
func textLen(name []byte) int {
	var buf [4 * MaxName]byte
	return len(AppendText(buf[:0], name))
}
