package store

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/transport"
)

// DefaultPrefix is where a fleet's keys are in an existing etcd when nothing is said.
const DefaultPrefix = "/fettle/main"

// Where says which existing etcd cluster is a fleet's store, and as whom it is asked.
// It holds no secret: the password stays in its file until it is sent.
type Where struct {
	Endpoints []string // URLs of its members: https://host:2379, http:// on loopback only, unix:///path
	Prefix    string   // below which all keys of the fleet are; "": DefaultPrefix
	// PEM files: the authority that signed the members' certificates ("": the machine's),
	// and the certificate and key with which Fettle shows itself ("": none). They are
	// read anew with every connection, but for the authority.
	CAFile, CertFile, KeyFile string
	User, PasswordFile        string // "": the cluster asks for no user, or takes the certificate's name for it
}

// ParseEndpoints reads a list of URLs with commas in between. It takes any text.
func ParseEndpoints(text string) ([]string, error) {
	var list []string
	for _, one := range strings.Split(text, ",") {
		one = strings.TrimSpace(one)
		if err := checkEndpoint(one); err != nil {
			return nil, fmt.Errorf("address %.100q of the store: %w", one, err)
		}
		list = append(list, one)
	}
	return list, nil
}

func checkEndpoint(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return errors.New("want a URL such as https://10.0.0.5:2379")
	}
	switch {
	case u.User != nil:
		return errors.New("a name or password in it would stand in the list of processes (use --store-user and --store-password-file)")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("want nothing behind the address")
	case u.Scheme == "unix" && u.Host == "" && path.IsAbs(u.Path):
		return nil
	case u.Scheme == "unix":
		return errors.New("want unix:///PATH, with three slashes")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("want a URL such as https://10.0.0.5:2379")
	case u.Path != "":
		return errors.New("want nothing behind the port (keys have their place by --store-prefix)")
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil || host == "" || port == "" {
		return errors.New("want a host and a port, such as https://10.0.0.5:2379")
	}
	if ip := net.ParseIP(host); u.Scheme == "http" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return errors.New("without TLS whoever is on the way can lead the fleet (use https://; http:// is for this machine's own etcd on loopback)")
	}
	return nil
}

// maxPrefix bounds a prefix; etcd's keys may be longer.
const maxPrefix = 200

// CheckPrefix says what is wrong with a prefix.
func CheckPrefix(prefix string) error {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./", r)
	}
	switch {
	case len(prefix) > maxPrefix || strings.TrimFunc(prefix, plain) != "" || !strings.HasPrefix(prefix, "/") || path.Clean(prefix) != prefix || prefix == "/":
		return fmt.Errorf("prefix %.100q of the store: want /NAME or /NAME/NAME of letters, digits, '-', '_' and '.', such as %s", prefix, DefaultPrefix)
	case prefix+"/" == keyRoot:
		return fmt.Errorf("prefix %s of the store: that is where servers with a store of their own have their keys (name one below it, such as %s)", prefix, DefaultPrefix)
	}
	return nil
}

// Check says what is wrong with it, without asking anybody but the file system.
func (w Where) Check() error {
	if len(w.Endpoints) == 0 {
		return errors.New("no address of the store is named")
	}
	secure := false
	for _, e := range w.Endpoints {
		if err := checkEndpoint(e); err != nil {
			return fmt.Errorf("address %.100q of the store: %w", e, err)
		}
		secure = secure || strings.HasPrefix(e, "https://")
	}
	if err := CheckPrefix(w.prefix()); err != nil {
		return err
	}
	switch {
	case (w.CertFile == "") != (w.KeyFile == ""):
		return errors.New("a certificate for the store is of use only with its key, and a key with its certificate (--store-cert and --store-key)")
	case !secure && (w.CertFile != "" || w.CAFile != ""):
		return errors.New("certificates are named, and no address of the store begins with https://")
	case (w.User == "") != (w.PasswordFile == ""):
		return errors.New("a user of the store is of use only with a password, and a password with its user (--store-user and --store-password-file)")
	}
	for what, file := range map[string]string{"key": w.KeyFile, "password": w.PasswordFile} {
		if err := private(file); err != nil {
			return fmt.Errorf("the %s for the store: %w", what, err)
		}
	}
	return nil
}

// private refuses a file that others than its owner may read.
func private(file string) error {
	if file == "" {
		return nil
	}
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file", file)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s has mode %#o: others may read it: %w (chmod 600 %s)", file, info.Mode().Perm(), fs.ErrPermission, file)
	}
	return nil
}

// maxPassword bounds the file of a password.
const maxPassword = 4096

func (w Where) password() (string, error) {
	if w.PasswordFile == "" {
		return "", nil
	}
	data, err := os.ReadFile(w.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("the password for the store: %w", err)
	}
	word := strings.TrimRight(string(data), "\r\n")
	if word == "" || len(word) > maxPassword || strings.ContainsAny(word, "\r\n") {
		return "", fmt.Errorf("the password for the store: %s holds no password of one line", w.PasswordFile)
	}
	return word, nil
}

// tls is nil where no endpoint asks for it.
func (w Where) tls() (*tls.Config, error) {
	for _, e := range w.Endpoints {
		if strings.HasPrefix(e, "https://") {
			info := transport.TLSInfo{CertFile: w.CertFile, KeyFile: w.KeyFile, TrustedCAFile: w.CAFile}
			conf, err := info.ClientConfig()
			if err != nil {
				return nil, fmt.Errorf("the certificates for the store: %w", err)
			}
			return conf, nil
		}
	}
	return nil, nil
}

func (w Where) prefix() string {
	if w.Prefix == "" {
		return DefaultPrefix
	}
	return w.Prefix
}

func (w Where) root() string { return w.prefix() + "/" }

// String names the store for people.
func (w Where) String() string {
	return w.root() + " at " + strings.Join(w.Endpoints, ", ")
}
