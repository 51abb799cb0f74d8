package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mountPoint is one line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
type mountPoint struct {
	root   string   // what of the file system is mounted
	path   string   // where
	fstype string   // "ext4", "cgroup2", …
	super  []string // options of the file system, for cgroup its controllers
}

// parseMountinfo reads a mountinfo file, in its order: a later mount may lie over an earlier one.
func parseMountinfo(text string) ([]mountPoint, error) {
	var out []mountPoint
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			continue
		}
		// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Split(left, " "), strings.Split(right, " ")
		if !ok || len(l) < 6 || len(r) < 3 {
			return nil, fmt.Errorf("mountinfo: cannot read the line %q", line)
		}
		root, err1 := unescapeMount(l[3])
		path, err2 := unescapeMount(l[4])
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		out = append(out, mountPoint{root: root, path: path, fstype: r[0], super: strings.Split(r[2], ",")})
	}
	return out, nil
}

// unescapeMount undoes the kernel's \ooo for space, tab, newline and backslash.
func unescapeMount(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i+4 > len(s) {
			return "", fmt.Errorf("mountinfo: cut off escape in %q", s)
		}
		c, err := strconv.ParseUint(s[i+1:i+4], 8, 8)
		if err != nil {
			return "", fmt.Errorf("mountinfo: bad escape in %q", s)
		}
		b.WriteByte(byte(c))
		i += 3
	}
	return b.String(), nil
}

func mounts() ([]mountPoint, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMountinfo(string(data))
}

// mountsUnder are the mount points at or below dir, in the order in which they were mounted.
func mountsUnder(all []mountPoint, dir string) []mountPoint {
	var out []mountPoint
	for _, m := range all {
		if m.path == dir || strings.HasPrefix(m.path, strings.TrimSuffix(dir, "/")+"/") {
			out = append(out, m)
		}
	}
	return out
}

// removeDir removes a folder of the lab with all that is in it. It refuses to if anything is mounted there: what lies
// behind a mount is not the lab's.
func removeDir(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	all, err := mounts()
	if err != nil {
		return err
	}
	if under := mountsUnder(all, dir); len(under) > 0 {
		return fmt.Errorf("remove %s: %s is mounted there: unmount it first", dir, under[0].path)
	}
	return os.RemoveAll(dir)
}
