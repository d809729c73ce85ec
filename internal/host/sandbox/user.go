package sandbox

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// A User is whom a program becomes.
type User struct {
	Name     string // as it was given; "" for a number of its own
	UID, GID int
}

// Self is the user of this process.
func Self() User { return User{UID: os.Geteuid(), GID: os.Getegid()} }

// Nobody is the user who owns nothing.
var Nobody = User{Name: "nobody", UID: 65534, GID: 65534}

// Numbers for users of their own, one for each process of this machine that asks: no
// distribution gives these to people, services or containers (systemd's
// UIDS-GIDS), and a process's number is below 4 million.
const firstOwn = 0x74680000

// Where a user name space has not that many numbers, those that systemd gives to
// services for the time that they run.
const (
	firstDynamic = 61184
	dynamics     = 65519 - firstDynamic
)

// Own returns a user that no other process has: not root's, not a person's.
func Own() (User, error) {
	f, err := os.Open("/proc/self/uid_map")
	if err != nil {
		return User{}, err
	}
	defer f.Close()
	return own(os.Getpid(), f)
}

// own chooses the user of a process, of those that a user name space's map has
// (user_namespaces(7): first inside, first outside, how many).
func own(pid int, uidMap io.Reader) (User, error) {
	choices := [...]int{firstOwn + pid, firstDynamic + pid%dynamics}
	lines := bufio.NewScanner(uidMap)
	var ranges [][2]int
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 3 {
			continue
		}
		first, err1 := strconv.Atoi(f[0])
		n, err2 := strconv.Atoi(f[2])
		if err1 == nil && err2 == nil {
			ranges = append(ranges, [2]int{first, first + n})
		}
	}
	for _, id := range choices {
		for _, r := range ranges {
			if id >= r[0] && id < r[1] {
				return User{UID: id, GID: id}, nil
			}
		}
	}
	return User{}, fmt.Errorf("there is no user number for it in this user name space (--user names one)")
}

// ParseUser finds a user by name, or as UID:GID. Root is refused.
func ParseUser(as string) (User, error) {
	u := User{Name: as}
	if uid, gid, ok := strings.Cut(as, ":"); ok {
		a, err1 := strconv.ParseUint(uid, 10, 31)
		b, err2 := strconv.ParseUint(gid, 10, 31)
		if err1 != nil || err2 != nil {
			return u, fmt.Errorf("%q is no user (want a name, or UID:GID)", as)
		}
		u.UID, u.GID = int(a), int(b)
	} else {
		x, err := user.Lookup(as)
		if err != nil {
			return u, fmt.Errorf("%w (want a user's name, or UID:GID)", err)
		}
		u.UID, _ = strconv.Atoi(x.Uid)
		u.GID, _ = strconv.Atoi(x.Gid)
	}
	if u.UID == 0 || u.GID == 0 {
		return u, fmt.Errorf("%q is root, or has its group: name a user without rights", as)
	}
	return u, nil
}

// String names the user.
func (u User) String() string {
	if u.Name != "" {
		return u.Name
	}
	return "uid " + strconv.Itoa(u.UID)
}
