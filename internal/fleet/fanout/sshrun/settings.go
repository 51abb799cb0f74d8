package sshrun

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Settings is how one host is connected to.
type Settings struct {
	HostName         string
	Port             int
	User             string
	IdentityFiles    []string // as configured, or ssh's defaults
	OwnIdentities    bool     // IdentityFiles are configured
	IdentitiesOnly   bool
	IdentityAgent    string // path of a socket; "" none
	KnownHosts       []string
	HostKeyAlias     string
	ProxyJump        []string // "none" is empty
	ConnectTimeout   time.Duration
	Network          string // tcp, tcp4, tcp6
	UncheckedWished  string // where StrictHostKeyChecking wishes less than is done here
	proxyJumpWasNone bool
}

// Person is on whose behalf one connects.
type Person struct {
	User  string
	Home  string
	Agent string // SSH_AUTH_SOCK
}

// harmless settings are about what is not done here (terminals, forwarding,
// multiplexing, what is printed), or only say what is done anyhow.
const harmless = ` addkeystoagent batchmode canonicaldomains canonicalizefallbacklocal canonicalizemaxdots canonicalizepermittedcnames
 channeltimeout checkhostip clearallforwardings compression connectionattempts controlmaster controlpath controlpersist dynamicforward enableescapecommandline
 escapechar exitonforwardfailure fingerprinthash forkafterauthentication forwardagent forwardx11 forwardx11timeout
 forwardx11trusted gatewayports gssapiauthentication gssapidelegatecredentials hashknownhosts hostbasedauthentication
 ignoreunknown ipqos kbdinteractiveauthentication challengeresponseauthentication kbdinteractivedevices localcommand localforward
 loglevel logverbose nohostauthenticationforlocalhost numberofpasswordprompts passwordauthentication permitlocalcommand
 permitremoteopen preferredauthentications protocol proxyusefdpass rekeylimit remoteforward requesttty
 sendenv serveralivecountmax serveraliveinterval sessiontype setenv stdinnull streamlocalbindmask streamlocalbindunlink
 syslogfacility tag tcpkeepalive updatehostkeys useroaming verifyhostkeydns visualhostkey xauthlocation usekeychain warnweakcrypto `

// unless are settings that change nothing with the values given here, and are not
// supported with others.
func unless(key string) []string {
	switch key {
	case "proxycommand", "revokedhostkeys", "certificatefile", "pkcs11provider", "remotecommand":
		return []string{"none"}
	case "canonicalizehostname":
		return []string{"no", "false"}
	case "pubkeyauthentication":
		return []string{"yes", "true"}
	case "securitykeyprovider":
		return []string{"internal"}
	}
	return nil
}

// Lookup says how the host that a person calls alias is connected to.
func (c *Config) Lookup(alias string, p Person) (Settings, error) {
	s := Settings{}
	set := map[string]configLine{}
	ignored := []string{}
	for _, l := range c.lines {
		applies, unsure := l.applies(alias, &s, p)
		_, before := set[l.key]
		switch {
		case !applies && unsure == "", strings.Contains(harmless, " "+l.key+" ") && l.key != "ignoreunknown":
			continue
		case l.key == "ignoreunknown":
			ignored = append(ignored, strings.Split(strings.ToLower(l.args[0]), ",")...)
			continue
		case before && l.key != "identityfile", matchList(ignored, l.key):
			continue
		case unsure != "":
			return s, fmt.Errorf("%s: whether %s applies depends on %s, which is not supported here; write it under Host", l.at(), l.key, unsure)
		}
		if known := unless(l.key); known != nil {
			if !slices.Contains(known, strings.ToLower(l.args[0])) {
				return s, fmt.Errorf("%s: %s is not supported here, and would change how %s is connected to", l.at(), l.key, alias)
			}
		} else if err := s.take(l, alias); err != nil {
			return s, err
		}
		set[l.key] = l
	}
	return s, s.finish(alias, p, set)
}

// applies says whether a line is about this host. Unsure names a criterion that
// cannot be judged here.
func (l configLine) applies(alias string, s *Settings, p Person) (applies bool, unsure string) {
	applies = true
	for _, c := range l.when {
		if !c.match {
			applies = applies && matchList(c.line.args, alias)
			continue
		}
		ok, word := c.matches(alias, s, p)
		if word != "" {
			unsure = fmt.Sprintf("Match %s (%s)", word, c.line.at())
			continue
		}
		applies = applies && ok
	}
	if !applies {
		unsure = ""
	}
	return applies && unsure == "", unsure
}

// matches judges a Match line.
func (c condition) matches(alias string, s *Settings, p Person) (ok bool, unsure string) {
	ok = true
	for i := 0; i < len(c.line.args); i++ {
		word, not := strings.CutPrefix(strings.ToLower(c.line.args[i]), "!")
		if word == "all" {
			ok = ok && !not
			continue
		}
		var name string
		switch word {
		case "host":
			name = orElse(s.HostName, alias)
		case "originalhost":
			name = alias
		case "user":
			name = orElse(s.User, p.User)
		case "localuser":
			name = p.User
		default:
			if !ok { // what stands before it rules the host out
				return false, ""
			}
			return false, word
		}
		i++
		if i == len(c.line.args) {
			return false, word + " without a value"
		}
		ok = ok && matchList(strings.Split(c.line.args[i], ","), name) != not
	}
	return ok, ""
}

// take sets one setting. Values with tokens are expanded by finish.
func (s *Settings) take(l configLine, alias string) error {
	value := l.args[0]
	bad := func(want string) error { return fmt.Errorf("%s: %s %q: want %s", l.at(), l.key, value, want) }
	var err error
	switch l.key {
	case "hostname":
		s.HostName, err = expand(value, map[byte]string{'h': alias})
		if err != nil {
			return fmt.Errorf("%s: %s: %w", l.at(), l.key, err)
		}
	case "port":
		if s.Port, err = strconv.Atoi(value); err != nil || s.Port < 1 || s.Port > 65535 {
			return bad("1 to 65535")
		}
	case "user":
		s.User = value
	case "identityfile":
		s.OwnIdentities = true
		s.IdentityFiles = append(s.IdentityFiles, value)
	case "identitiesonly":
		if s.IdentitiesOnly, err = yesNo(value); err != nil {
			return bad("yes or no")
		}
	case "identityagent":
		s.IdentityAgent = value
	case "userknownhostsfile", "globalknownhostsfile": // finish reads them
	case "hostkeyalias":
		s.HostKeyAlias = value
	case "proxyjump":
		if strings.EqualFold(value, "none") {
			s.proxyJumpWasNone = true
		} else {
			s.ProxyJump = strings.Split(value, ",")
		}
	case "connecttimeout":
		if value == "none" {
			break
		}
		if s.ConnectTimeout, err = seconds(value); err != nil {
			return bad("seconds")
		}
	case "addressfamily":
		s.Network = map[string]string{"any": "tcp", "inet": "tcp4", "inet6": "tcp6"}[strings.ToLower(value)]
		if s.Network == "" {
			return bad("any, inet or inet6")
		}
	case "stricthostkeychecking":
		switch strings.ToLower(value) {
		case "yes", "ask", "true":
		case "no", "off", "accept-new", "false":
			s.UncheckedWished = l.at()
		default:
			return bad("yes, ask, accept-new or no")
		}
	default:
		return fmt.Errorf("%s: %s is not supported here, and would or could change how %s is connected to (a setting that ssh itself does not know goes under IgnoreUnknown)", l.at(), l.key, alias)
	}
	return nil
}

// finish fills in ssh's defaults and expands tokens.
func (s *Settings) finish(alias string, p Person, set map[string]configLine) error {
	s.HostName = orElse(s.HostName, alias)
	s.User = orElse(s.User, p.User)
	s.Network = orElse(s.Network, "tcp")
	if s.Port == 0 {
		s.Port = 22
	}
	if s.proxyJumpWasNone {
		s.ProxyJump = nil
	}
	if !s.OwnIdentities {
		for _, kind := range []string{"rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk"} {
			s.IdentityFiles = append(s.IdentityFiles, "~/.ssh/id_"+kind)
		}
	}
	local, err := os.Hostname()
	if err != nil {
		local = "localhost"
	}
	tokens := map[byte]string{'h': s.HostName, 'n': alias, 'p': strconv.Itoa(s.Port), 'r': s.User, 'u': p.User, 'd': p.Home, 'l': local, 'L': strings.SplitN(local, ".", 2)[0], 'k': orElse(s.HostKeyAlias, alias)}
	file := func(key, value string) (string, error) {
		out, err := expand(value, tokens)
		if err == nil {
			out, err = expandEnv(out)
		}
		if err != nil {
			return "", fmt.Errorf("%s: %s: %w", set[key].at(), key, err)
		}
		if after, ok := strings.CutPrefix(out, "~/"); ok {
			out = filepath.Join(p.Home, after)
		}
		return out, nil
	}
	var kept []string
	for _, name := range s.IdentityFiles {
		if strings.EqualFold(name, "none") {
			continue
		}
		path, err := file("identityfile", name)
		if err != nil {
			return err
		}
		kept = append(kept, path)
	}
	s.IdentityFiles = kept
	switch s.IdentityAgent {
	case "", "SSH_AUTH_SOCK":
		s.IdentityAgent = p.Agent
	case "none":
		s.IdentityAgent = ""
	default:
		if name, ok := strings.CutPrefix(s.IdentityAgent, "$"); ok && !strings.HasPrefix(name, "{") {
			s.IdentityAgent = "${" + name + "}"
		}
		if s.IdentityAgent, err = file("identityagent", s.IdentityAgent); err != nil {
			return err
		}
	}
	known := func(key string, standard ...string) error {
		if l, ok := set[key]; ok {
			standard = l.args
		}
		for _, name := range standard {
			if strings.EqualFold(name, "none") {
				continue
			}
			path, err := file(key, name)
			if err != nil {
				return err
			}
			s.KnownHosts = append(s.KnownHosts, path)
		}
		return nil
	}
	if err := known("userknownhostsfile", "~/.ssh/known_hosts", "~/.ssh/known_hosts2"); err != nil {
		return err
	}
	return known("globalknownhostsfile", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func yesNo(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "yes", "true":
		return true, nil
	case "no", "false":
		return false, nil
	}
	return false, strconv.ErrSyntax
}

// seconds reads a time as ssh writes it: a number of seconds, or 1m30s.
func seconds(s string) (time.Duration, error) {
	if n, err := strconv.Atoi(s); err == nil {
		s = strconv.Itoa(n) + "s"
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > 24*time.Hour {
		return 0, strconv.ErrSyntax
	}
	return d, nil
}

// expand replaces %-tokens (ssh_config(5), TOKENS).
func expand(s string, tokens map[byte]string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if i == len(s) {
			return "", fmt.Errorf("%q ends in %%", s)
		}
		value, ok := tokens[s[i]]
		switch {
		case s[i] == '%':
			value = "%"
		case !ok:
			return "", fmt.Errorf("the token %%%c is not supported here", s[i])
		}
		b.WriteString(value)
	}
	return b.String(), nil
}

// expandEnv replaces ${NAME}.
func expandEnv(s string) (string, error) {
	for from := 0; ; {
		begin := strings.Index(s[from:], "${")
		if begin < 0 {
			return s, nil
		}
		begin += from
		end := strings.IndexByte(s[begin:], '}')
		if end < 0 {
			return "", fmt.Errorf("%q has a ${ without a }", s)
		}
		value, ok := os.LookupEnv(s[begin+2 : begin+end])
		if !ok {
			return "", fmt.Errorf("there is no %s in the environment", s[begin+2:begin+end])
		}
		s = s[:begin] + value + s[begin+end+1:]
		from = begin + len(value)
	}
}
