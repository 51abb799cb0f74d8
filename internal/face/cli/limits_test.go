package cli

import "testing"

func TestStoreQuota(t *testing.T) {
	for text, want := range map[string]int64{"512MiB": 512 << 20, "2GiB": 2 << 30, "8 GiB": 8 << 30, "1MiB": 0, "9GiB": 0, "512": 0, "-1GiB": 0, "": 0, "MiB": 0, "99999999999999GiB": 0} {
		var b bytesFlag
		err := b.Set(text)
		if (err == nil) != (want != 0) || int64(b) != want {
			t.Errorf("%q: %d, %v", text, b, err)
		}
	}
}

func FuzzParseBytes(f *testing.F) {
	f.Add("512MiB")
	f.Add("-2GiB")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := parseBytes(text); err == nil && n < 1<<20 {
			t.Errorf("%q is %d", text, n)
		}
	})
}
