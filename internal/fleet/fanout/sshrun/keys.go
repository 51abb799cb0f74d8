package sshrun

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"fettle/internal/fleet/fanout"
)

// keyring is the keys of a person and of the hosts that the person knows, each
// file read once. All methods may be called from several goroutines.
type keyring struct {
	mu     sync.Mutex
	files  map[string]identity
	agents map[string]*agentKeys
	known  map[string]knownList
}

// identity is one private key file.
type identity struct {
	signer ssh.Signer
	public ssh.PublicKey // where only that can be read
	note   string        // why it is of no use by itself
}

// agentKeys is what an ssh-agent has.
type agentKeys struct {
	conn    net.Conn
	signers []ssh.Signer
	note    string
}

type knownList struct {
	check ssh.HostKeyCallback
	err   error
}

func newKeyring() *keyring {
	return &keyring{files: map[string]identity{}, agents: map[string]*agentKeys{}, known: map[string]knownList{}}
}

// close ends the connections to agents.
func (k *keyring) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range k.agents { // any order: each is closed
		if a.conn != nil {
			a.conn.Close()
		}
	}
}

// signers gives the keys to offer for a host, in ssh's order: those of the agent
// that are configured, the agent's others, those in files. Notes say which could
// not be used.
func (k *keyring) signers(s Settings) (offered []ssh.Signer, notes []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var own []identity
	for _, name := range s.IdentityFiles {
		id := k.file(name)
		own = append(own, id)
		if id.note != "" && (s.OwnIdentities || !strings.Contains(id.note, "no such file")) {
			notes = append(notes, id.note)
		}
	}
	configured := func(pub ssh.PublicKey) bool {
		return slices.ContainsFunc(own, func(id identity) bool {
			return id.public != nil && bytes.Equal(id.public.Marshal(), pub.Marshal())
		})
	}
	a := k.agent(s.IdentityAgent)
	if a.note != "" {
		notes = append(notes, a.note)
	}
	var others []ssh.Signer
	for _, signer := range a.signers {
		if configured(signer.PublicKey()) {
			offered = append(offered, signer)
		} else if !s.IdentitiesOnly {
			others = append(others, signer)
		}
	}
	offered = append(offered, others...)
	for _, id := range own {
		if id.signer != nil && !slices.ContainsFunc(offered, func(o ssh.Signer) bool {
			return bytes.Equal(o.PublicKey().Marshal(), id.signer.PublicKey().Marshal())
		}) {
			offered = append(offered, id.signer)
		}
	}
	if len(offered) == 0 {
		notes = append(notes, "there is no key to offer")
	}
	return offered, notes
}

func (k *keyring) file(name string) identity {
	if id, ok := k.files[name]; ok {
		return id
	}
	id := readIdentity(name)
	k.files[name] = id
	return id
}

func readIdentity(name string) identity {
	var id identity
	if text, err := os.ReadFile(name + ".pub"); err == nil {
		if pub, _, _, _, err := ssh.ParseAuthorizedKey(text); err == nil {
			id.public = pub
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		id.note = err.Error()
		if id.public != nil && errors.Is(err, fs.ErrNotExist) {
			id.note = "" // the agent has the private half, as on a token
		}
		return id
	}
	signer, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	switch {
	case err == nil:
		id.signer, id.public = signer, signer.PublicKey()
	case errors.As(err, &locked):
		if locked.PublicKey != nil {
			id.public = locked.PublicKey
		}
		id.note = fmt.Sprintf("%s has a passphrase: ssh-add it", name)
	default:
		id.note = fmt.Sprintf("%s cannot be read as a private key", name)
	}
	return id
}

func (k *keyring) agent(socket string) *agentKeys {
	if a, ok := k.agents[socket]; ok || socket == "" {
		if a == nil {
			a = &agentKeys{}
		}
		return a
	}
	a := &agentKeys{}
	k.agents[socket] = a
	ctx, cancel := context.WithTimeout(context.Background(), fanout.DefaultConnect) // for all hosts, whoever asks first
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		a.note = fmt.Sprintf("the ssh agent does not answer: %v", err)
		return a
	}
	a.conn = conn
	if a.signers, err = agent.NewClient(conn).Signers(); err != nil {
		a.note = fmt.Sprintf("the ssh agent lists no keys: %v", err)
	}
	return a
}

// hostKeys gives what checks a host's key against lists of known hosts. A list
// that is not there is empty.
func (k *keyring) hostKeys(files []string) (ssh.HostKeyCallback, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	name := strings.Join(files, "\x00")
	l, ok := k.known[name]
	if !ok {
		var there []string
		for _, f := range files {
			if _, err := os.Stat(f); !errors.Is(err, fs.ErrNotExist) {
				there = append(there, f)
			}
		}
		l.check, l.err = knownhosts.New(there...)
		k.known[name] = l
	}
	return l.check, l.err
}

// algorithms gives the kinds of key by which a host is known, so that it shows one
// of these and not another that nobody has seen; none when it is not known.
func algorithms(check ssh.HostKeyCallback, address string) []string {
	// A key that no list has: the answer names those that it has.
	probe, err := ssh.NewPublicKey(ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)))
	if err != nil {
		return nil
	}
	var unknown *knownhosts.KeyError
	if !errors.As(check(address, &net.TCPAddr{IP: net.IPv4zero}, probe), &unknown) {
		return nil
	}
	var out []string
	for _, want := range unknown.Want {
		names := []string{want.Key.Type()}
		if names[0] == ssh.KeyAlgoRSA { // RFC 8332
			names = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
		}
		for _, n := range names {
			if !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	return out
}

// refuseKey is the error about a host's key, with what to do.
func refuseKey(alias string, s Settings, key ssh.PublicKey, err error) error {
	shown := key.Type() + " " + ssh.FingerprintSHA256(key)
	wish := ""
	if s.UncheckedWished != "" {
		wish = fmt.Sprintf(" (%s asks for less checking, which is not done here)", s.UncheckedWished)
	}
	var wrong *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case errors.As(err, &revoked):
		return fanout.Refuse("ask who runs the host", "its host key %s was revoked in %s:%d", shown, revoked.Revoked.Filename, revoked.Revoked.Line)
	case errors.As(err, &wrong) && len(wrong.Want) > 0:
		w := wrong.Want[0]
		return fanout.Refuse(fmt.Sprintf("if the host was set up anew, take the old key out (ssh-keygen -R); if not, somebody may stand between: ask who runs %s", alias),
			"it shows the host key %s, which is not the one of %s:%d", shown, w.Filename, w.Line)
	case errors.As(err, &wrong):
		return fanout.Refuse(fmt.Sprintf("connect once with `ssh %s` and compare the fingerprint, or put the key into %s", alias, orElse(strings.Join(s.KnownHosts, " or "), "a list of known hosts")),
			"its host key %s is not known%s", shown, wish)
	}
	return fanout.Refuse("", "its host key %s: %v", shown, err)
}
