package sshrun

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"fettle/internal/fleet/fanout"
)

// DefaultKeepalive is how often a host that runs a command is asked for a sign of
// life: often enough that one that stops is named within fanout.DefaultNotice.
const DefaultKeepalive = 400 * time.Millisecond

// partingTime is how long telling a host to end a command may take.
const partingTime = 200 * time.Millisecond

// Runner reaches hosts over SSH. It is a fanout.Runner.
type Runner struct {
	Config  *Config
	Person  Person
	Connect time.Duration // of every host and hop, whatever the configuration says; 0: as that says
	Ask     time.Duration // 0: DefaultKeepalive

	once  sync.Once
	keys  *keyring
	mu    sync.Mutex
	jumps map[string]*jump
}

// jump is a connection to a host through which others are reached, made once and
// shared.
type jump struct {
	made   chan struct{} // closed when the rest is set
	client *ssh.Client
	err    error
}

func (r *Runner) ready() {
	r.once.Do(func() { r.keys, r.jumps = newKeyring(), map[string]*jump{} })
}

// Close ends what Run calls share: connections to agents and jump hosts. No Run
// may be under way.
func (r *Runner) Close() {
	r.ready()
	r.keys.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range r.jumps { // any order: each is closed
		if <-j.made; j.client != nil {
			j.client.Close()
		}
	}
}

// Run implements fanout.Runner.
func (r *Runner) Run(ctx context.Context, h fanout.Host, c fanout.Command, s *fanout.Sink) (fanout.Status, error) {
	r.ready()
	settings, err := r.Config.Lookup(h.Name, r.Person)
	if err != nil {
		return fanout.Status{}, fanout.Refuse("", "%w", err)
	}
	// As options on the command line go before the configuration.
	settings.HostName = orElse(h.Address, settings.HostName)
	settings.User = orElse(h.User, settings.User)
	if h.Port > 0 {
		settings.Port = h.Port
	}
	allow := orElseTime(r.Connect, settings.ConnectTimeout)
	if allow > 0 {
		s.Allow(allow)
	}
	conn, err := r.dial(ctx, h.Name, settings, s)
	if err != nil {
		return fanout.Status{}, err
	}
	defer conn.Close()
	parted := make(chan struct{})
	session := &handle{}
	stop := context.AfterFunc(ctx, func() {
		defer close(parted)
		// Whoever is given up, or cut off, is told to end the command, as far as
		// the network takes it; then the connection goes.
		_ = conn.SetWriteDeadline(time.Now().Add(partingTime))
		session.terminate()
		conn.Close()
	})
	defer func() {
		if !stop() {
			<-parted
		}
	}()
	client, err := r.login(conn, h.Name, settings, s.Alive)
	if err != nil {
		return fanout.Status{}, err
	}
	defer client.Close()
	return r.command(client, c, s, session)
}

func orElseTime(a, b time.Duration) time.Duration {
	if a > 0 {
		return a
	}
	return b
}

// dial makes the connection to a host, over the hosts before it.
func (r *Runner) dial(ctx context.Context, alias string, settings Settings, s *fanout.Sink) (net.Conn, error) {
	address := net.JoinHostPort(settings.HostName, strconv.Itoa(settings.Port))
	dial := (&net.Dialer{}).DialContext
	if len(settings.ProxyJump) > 0 {
		last, err := r.through(ctx, settings.ProxyJump, s)
		if err != nil {
			return nil, fanout.Unreach("", "through %s: %w", strings.Join(settings.ProxyJump, ","), err)
		}
		s.Hop()
		dial = last.DialContext
	}
	conn, err := dial(ctx, settings.Network, address)
	if err != nil {
		return nil, fanout.Unreach(fmt.Sprintf("is %s (%s) on, and does sshd run there?", alias, address), "%w", err)
	}
	s.Reached()
	return conn, nil
}

// through gives the connection to the last of a chain of jump hosts.
func (r *Runner) through(ctx context.Context, chain []string, s *fanout.Sink) (*ssh.Client, error) {
	key := strings.Join(chain, ",")
	for {
		r.mu.Lock()
		j, there := r.jumps[key]
		if !there {
			j = &jump{made: make(chan struct{})}
			r.jumps[key] = j
		}
		r.mu.Unlock()
		if !there {
			j.client, j.err = r.jumpTo(ctx, chain, s)
			if j.err != nil && ctx.Err() != nil { // not the jump host's fault: the next host tries anew
				r.mu.Lock()
				delete(r.jumps, key)
				r.mu.Unlock()
			}
			close(j.made)
			return j.client, j.err
		}
		select {
		case <-j.made:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		r.mu.Lock()
		again := r.jumps[key] != j
		r.mu.Unlock()
		if !again {
			return j.client, j.err
		}
	}
}

// jumpTo connects to the last host of a chain. It does not tell the sink that
// anything is alive: that is about the host at its end.
func (r *Runner) jumpTo(ctx context.Context, chain []string, s *fanout.Sink) (*ssh.Client, error) {
	alias, user, port, err := parseJump(chain[len(chain)-1])
	if err != nil {
		return nil, err
	}
	settings, err := r.Config.Lookup(alias, r.Person)
	if err != nil {
		return nil, err
	}
	settings.User = orElse(user, settings.User)
	if port > 0 {
		settings.Port = port
	}
	if rest := chain[:len(chain)-1]; len(rest) > 0 {
		settings.ProxyJump = rest
	}
	if len(settings.ProxyJump) >= maxInclude {
		return nil, fmt.Errorf("more than %d jump hosts", maxInclude)
	}
	s.Hop()
	conn, err := r.dial(ctx, alias, settings, s)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	client, err := r.login(conn, alias, settings, func() {})
	if !stop() {
		err = errors.Join(err, context.Cause(ctx))
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", alias, err)
	}
	return client, nil
}

// parseJump reads [user@]host[:port] or ssh://[user@]host[:port].
func parseJump(text string) (host, user string, port int, err error) {
	host = strings.TrimPrefix(text, "ssh://")
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		user, host = host[:i], host[i+1:]
	}
	if name, digits, err := net.SplitHostPort(host); err == nil {
		if port, err = strconv.Atoi(digits); err != nil || port < 1 || port > 65535 {
			return "", "", 0, fmt.Errorf("ProxyJump %q: %q is no port", text, digits)
		}
		host = name
	}
	if err := fanout.CheckName(host); err != nil {
		return "", "", 0, fmt.Errorf("ProxyJump %q: %w", text, err)
	}
	return host, user, port, nil
}

// login does the handshake on a connection. It returns when the connection ends.
func (r *Runner) login(conn net.Conn, alias string, settings Settings, alive func()) (*ssh.Client, error) {
	check, err := r.keys.hostKeys(settings.KnownHosts)
	if err != nil {
		return nil, fanout.Refuse("correct the line, or take it out", "read the known hosts: %w", err)
	}
	name := net.JoinHostPort(settings.HostName, strconv.Itoa(settings.Port))
	if settings.HostKeyAlias != "" {
		name = net.JoinHostPort(settings.HostKeyAlias, "22")
	}
	var verdict error // of the host's key: the library passes only its text on
	var notes []string
	config := &ssh.ClientConfig{
		User: settings.User,
		HostKeyCallback: func(_ string, remote net.Addr, key ssh.PublicKey) error {
			if err := check(name, remote, key); err != nil {
				verdict = refuseKey(alias, settings, key, err)
			}
			return verdict
		},
		HostKeyAlgorithms: algorithms(check, name),
		ClientVersion:     "SSH-2.0-Fettle",
		Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
			var signers []ssh.Signer
			signers, notes = r.keys.signers(settings)
			return signers, nil
		})},
	}
	c, channels, requests, err := ssh.NewClientConn(&heard{conn, alive}, name, config)
	switch {
	case verdict != nil:
		return nil, verdict
	case err != nil && strings.Contains(err.Error(), "unable to authenticate"):
		hint := "is the right key in the ssh agent, or named with IdentityFile, and known on the host?"
		if len(notes) > 0 {
			hint += " (" + strings.Join(notes, "; ") + ")"
		}
		return nil, fanout.Refuse(hint, "%s does not let %s in with any key", alias, settings.User)
	case err != nil:
		return nil, fmt.Errorf("login as %s: %w", settings.User, err)
	}
	return ssh.NewClient(c, channels, requests), nil
}

// heard tells when something comes over a connection.
type heard struct {
	net.Conn
	alive func()
}

func (h *heard) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if n > 0 {
		h.alive()
	}
	return n, err
}

// handle is the running session, to tell it to end.
type handle struct {
	mu      sync.Mutex
	session *ssh.Session
}

func (h *handle) set(s *ssh.Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.session = s
}

// terminate asks the host to end the command. An sshd takes that for users other
// than root (its session_signal_req); there is no answer.
func (h *handle) terminate() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.session != nil {
		_ = h.session.Signal(ssh.SIGTERM) // what could not be told is what Result.Began is about
	}
}

// output passes on one stream.
type output struct {
	s      *fanout.Sink
	stream fanout.Stream
}

func (o output) Write(b []byte) (int, error) {
	o.s.Output(o.stream, b)
	return len(b), nil
}

// command runs the command in a session and waits for its end.
func (r *Runner) command(client *ssh.Client, c fanout.Command, s *fanout.Sink, h *handle) (fanout.Status, error) {
	session, err := client.NewSession()
	var closed *ssh.OpenChannelError
	if errors.As(err, &closed) {
		return fanout.Status{}, fanout.Refuse("sshd's MaxSessions, or its configuration, forbids it", "it opens no session: %w", err)
	}
	if err != nil {
		return fanout.Status{}, fmt.Errorf("open a session: %w", err)
	}
	defer session.Close()
	session.Stdout, session.Stderr = output{s, fanout.Stdout}, output{s, fanout.Stderr}
	over := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() { r.ask(client, over) })
	defer asking.Wait()
	defer client.Close() // so that asking ends
	defer close(over)
	s.Begun()
	if err := session.Start(Quote(c.Argv)); err != nil {
		if strings.HasSuffix(err.Error(), "failed") { // ssh: command … failed: the answer was no
			return fanout.Status{}, fanout.Refuse("", "it does not run commands for this user")
		}
		return fanout.Status{}, fmt.Errorf("start the command: %w", err)
	}
	h.set(session)
	err = session.Wait()
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return fanout.Status{}, nil
	case errors.As(err, &exit) && exit.Signal() != "":
		return fanout.Status{Signal: exit.Signal()}, nil
	case errors.As(err, &exit):
		return fanout.Status{Exit: exit.ExitStatus()}, nil
	}
	return fanout.Status{}, &fanout.Failure{Outcome: fanout.Lost, Err: fmt.Errorf("the connection ended before the command's end was told: %w", err),
		Hint: "the command may have run, or run still: look before you repeat it"}
}

// ask asks for signs of life until over is closed or the connection has ended.
// The answer, whatever it is, is seen by heard.
func (r *Runner) ask(client *ssh.Client, over <-chan struct{}) {
	tick := time.NewTicker(orElseTime(r.Ask, DefaultKeepalive))
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		if _, _, err := client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			return
		}
	}
}

// Quote writes a command for the login shell that sshd hands it to, so that the
// arguments arrive as they are.
func Quote(argv []string) string {
	out := make([]string, len(argv))
	for i, arg := range argv {
		if arg != "" && strings.Trim(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%_+:,./-") == "" {
			out[i] = arg
			continue
		}
		out[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	return strings.Join(out, " ")
}

// Self is the person that runs this process.
func Self() (Person, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return Person{}, fmt.Errorf("find the home folder: %w", err)
	}
	name, err := userName()
	return Person{User: name, Home: home, Agent: os.Getenv("SSH_AUTH_SOCK")}, err
}
