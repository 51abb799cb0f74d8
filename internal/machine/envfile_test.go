package machine_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fettle/internal/machine"
)

// The expected values are what systemd 252 and 257 pass to a unit.
var environments = []struct {
	name, file string
	want       [][2]string
}{
	{"plain", "A=1\nB=two words\n", [][2]string{{"A", "1"}, {"B", "two words"}}},
	{"blanks around", "  A =  1  \n\n\tB=2", [][2]string{{"A", "1"}, {"B", "2"}}},
	{"comments", "# A=1\n; B=2\nC=3 # no comment\n", [][2]string{{"C", "3 # no comment"}}},
	{"comment is not continued", "# x \\\nA=1\n", [][2]string{{"A", "1"}}},
	{"no equals sign", "nonsense\nA=1\nmore", [][2]string{{"A", "1"}}},
	{"empty", "A=\nB=\"\"\nC=''", [][2]string{{"A", ""}, {"B", ""}, {"C", ""}}},
	{"single quotes", `A=' x\n "y" '`, [][2]string{{"A", ` x\n "y" `}}},
	{"double quotes", `A="a\"b\\c\$d\ e"`, [][2]string{{"A", `a"b\c$d\ e`}}},
	{"quoted newline", "A=\"x\ny\"\nB=1", [][2]string{{"A", "x\ny"}, {"B", "1"}}},
	{"continued", "A=x\\\ny\nB=\"x\\\ny\"\n", [][2]string{{"A", "xy"}, {"B", "xy"}}},
	{"escape outside quotes", `A=a\ b\"c\ `, [][2]string{{"A", `a b"c `}}},
	{"joined", `A="x" 'y' z`, [][2]string{{"A", "xyz"}}},
	{"quote within", `A=x"y"`, [][2]string{{"A", `x"y"`}}},
	{"equals within", "A=b=c", [][2]string{{"A", "b=c"}}},
	{"twice", "A=1\nA=2", [][2]string{{"A", "1"}, {"A", "2"}}},
	{"carriage returns", "A=1\r\nB=2\r\n", [][2]string{{"A", "1"}, {"B", "2"}}},
	{"unterminated", `A="x`, [][2]string{{"A", "x"}}},
	{"ends in backslash", `A=x\`, [][2]string{{"A", "x"}}},
}

func TestParseEnvironment(t *testing.T) {
	for _, tt := range environments {
		t.Run(tt.name, func(t *testing.T) {
			all, err := machine.ParseEnvironment([]byte(tt.file))
			if err != nil {
				t.Fatal(err)
			}
			var got [][2]string
			for _, a := range all {
				got = append(got, [2]string{a.Key, a.Value})
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
	for _, tt := range []struct{ file, hint string }{
		{"A=1\n2B=3\n", "line 2"},
		{"export A=1", `"export A"`},
		{"A=\xff", "not UTF-8"},
		{"=x", "no name"},
	} {
		if _, err := machine.ParseEnvironment([]byte(tt.file)); err == nil || !strings.Contains(err.Error(), tt.hint) {
			t.Errorf("%q: %v, want an error with %q", tt.file, err, tt.hint)
		}
	}
}

func TestSetEnvironment(t *testing.T) {
	for _, tt := range []struct{ file, key, value, want string }{
		{"# etcd\nA=1\nB=2 # x\nC=3\n", "B", "n$w", "# etcd\nA=1\nB=\"n\\$w\"\nC=3\n"},
		{"A=1", "B", "2", "A=1\nB=\"2\"\n"},
		{"", "B", "", "B=\"\"\n"},
		{"A=1\nA=2\n", "A", "3", "A=1\nA=\"3\"\n"},
		{"A=x\\\ny\nB=1\n", "A", "z", "A=\"z\"\nB=1\n"},
	} {
		got, err := machine.SetEnvironment([]byte(tt.file), tt.key, tt.value)
		if err != nil || string(got) != tt.want {
			t.Errorf("set %s=%q in %q: %q, %v; want %q", tt.key, tt.value, tt.file, got, err, tt.want)
		}
	}
	if _, err := machine.SetEnvironment(nil, "A B", "1"); err == nil {
		t.Error("a bad key was accepted")
	}
	for _, open := range []string{`A="`, `A=x\`} {
		if got, err := machine.SetEnvironment([]byte(open), "B", "1"); err == nil {
			t.Errorf("added to %q: %q", open, got)
		}
	}
}

func FuzzParseEnvironment(f *testing.F) {
	for _, tt := range environments {
		f.Add([]byte(tt.file), "A", "value")
	}
	f.Fuzz(func(t *testing.T, file []byte, key, value string) {
		all, err := machine.ParseEnvironment(file)
		if err != nil {
			return
		}
		for _, a := range all {
			if a.Start < 0 || a.Start >= a.End || a.End > len(file) {
				t.Fatalf("%+v is outside of the file", a)
			}
		}
		changed, err := machine.SetEnvironment(file, key, value)
		if err != nil {
			return
		}
		again, err := machine.ParseEnvironment(changed)
		if err != nil {
			t.Fatalf("set %s=%q in %q made %q: %v", key, value, file, changed, err)
		}
		last, found := "", false
		for _, a := range again {
			if a.Key == key {
				last, found = a.Value, true
			}
		}
		if !found || last != value {
			t.Fatalf("set %s=%q in %q made %q, which reads %q", key, value, file, changed, last)
		}
	})
}
