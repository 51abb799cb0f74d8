package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// journaldDirs are where journald.conf(5) is looked for, the first wins: the
// main file, and each drop-in by its name.
var journaldDirs = []string{"/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"}

// confMost is far above any real configuration file.
const confMost = 1 << 20

// journalLimit is what the journal may use on a filesystem of this size:
// SystemMaxUse of journald.conf(5), else a tenth of the filesystem, at most 4
// GiB. What cannot be read or understood is an error, for then it is not known
// what the owner declared.
func (i *instance) journalLimit(ctx context.Context, size int64) (int64, error) {
	conf, err := i.journaldConf(ctx)
	if err != nil {
		return 0, err
	}
	limit, set, err := maxUse(conf)
	switch {
	case err != nil:
		return 0, err
	case !set:
		return min(max(size/10, 1<<20), 4<<30), nil
	case limit == 0: // journald takes it for no limit
		return size, nil
	}
	return limit, nil
}

// journaldConf returns the main file and then the drop-ins by name, as journald
// reads them.
func (i *instance) journaldConf(ctx context.Context) (string, error) {
	var b strings.Builder
	for _, dir := range journaldDirs {
		text, there, err := i.conf(ctx, path.Join(dir, "journald.conf"))
		if err != nil {
			return "", err
		}
		if there {
			b.WriteString(text)
			break
		}
	}
	dropIns := map[string]string{} // by name, the first folder wins
	for _, dir := range journaldDirs {
		dir = path.Join(dir, "journald.conf.d")
		entries, err := i.m.Files.ReadDir(ctx, dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("list %s: %w", dir, err)
		}
		for _, e := range entries {
			if _, taken := dropIns[e.Name]; !taken && strings.HasSuffix(e.Name, ".conf") && !e.Mode.IsDir() {
				dropIns[e.Name] = path.Join(dir, e.Name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(dropIns)) {
		text, _, err := i.conf(ctx, dropIns[name])
		if err != nil {
			return "", err
		}
		b.WriteString("\n" + text)
	}
	return b.String(), nil
}

func (i *instance) conf(ctx context.Context, p string) (text string, there bool, err error) {
	data, err := i.m.Files.ReadFile(ctx, p, confMost)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read %s: %w", p, err)
	}
	return string(data), true, nil
}

// maxUse finds SystemMaxUse= in the text of journald.conf(5). The last one
// counts; an empty one takes those before it back.
func maxUse(conf string) (bytes int64, set bool, err error) {
	value := ""
	for line := range strings.Lines(conf) {
		name, v, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && strings.TrimSpace(name) == "SystemMaxUse" {
			value = strings.TrimSpace(v)
		}
	}
	if value == "" {
		return 0, false, nil
	}
	bytes, ok := sizeOf(value)
	if !ok {
		return 0, false, fmt.Errorf("journald.conf: SystemMaxUse=%s is no size that is known here", value)
	}
	return bytes, true, nil
}

// sizeOf parses a size as systemd.syntax(7) has them: 512M, 1.5G, 1G 200M, to
// the base of 1024.
func sizeOf(text string) (int64, bool) {
	const most = int64(1) << 62
	sum, last := int64(0), len(sizeUnits)
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimSpace(rest) {
		whole, after := digits(rest)
		if whole == "" {
			return 0, false
		}
		fraction := ""
		if f, ok := strings.CutPrefix(after, "."); ok {
			if fraction, after = digits(f); fraction == "" {
				return 0, false
			}
		}
		after = strings.TrimSpace(after)
		power := 0
		if after != "" {
			if power = strings.IndexByte(sizeUnits, after[0]); power < 0 {
				return 0, false
			}
			after = after[1:]
		}
		if power >= last { // systemd wants them from the largest down
			return 0, false
		}
		last = power
		n, ok := scale(whole, fraction, int64(1)<<(10*power), most)
		if !ok || n > most-sum {
			return 0, false
		}
		sum, rest = sum+n, after
	}
	return sum, strings.TrimSpace(text) != ""
}

const sizeUnits = "BKMGTPE"

func digits(s string) (number, rest string) {
	n := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if n < 0 {
		n = len(s)
	}
	return s[:n], s[n:]
}

// scale returns whole.fraction times unit, without a float, or false above most.
func scale(whole, fraction string, unit, most int64) (int64, bool) {
	n := int64(0)
	for _, d := range whole {
		if n > (most-9)/10 {
			return 0, false
		}
		n = n*10 + int64(d-'0')
	}
	if n > most/unit {
		return 0, false
	}
	n *= unit
	num, den := int64(0), int64(1)
	for _, d := range fraction[:min(len(fraction), 9)] { // what is beyond is less than a byte of a gigabyte
		num, den = num*10+int64(d-'0'), den*10
	}
	n += unit/den*num + unit%den*num/den
	return n, n <= most
}
