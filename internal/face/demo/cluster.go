package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"fettle/internal/machine"
	"fettle/internal/machine/procservices"
)

// quota is each member's space quota. Small, so that it can be reached within a
// second; etcd's own default is 2 GiB.
const quota = 24 << 20

// member is one of the demo's etcd servers: a real one, a child process that
// runs etcd's own main function.
type member struct {
	name, host, unit    string
	clientURL, peerURL  string
	dataDir, envFile    string
	logFile, clientAddr string
}

func (m member) endpoint() string { return m.clientURL }

// cluster is three members on loopback.
type cluster struct {
	dir      string
	members  []member
	services *procservices.Services
}

// newCluster lays out three members below dir. self is this program's path, and
// args the arguments that make it an etcd server.
func newCluster(dir string, services *procservices.Services, self string, args []string) (*cluster, error) {
	c := &cluster{dir: dir, services: services}
	ports, err := freePorts(6)
	if err != nil {
		return nil, err
	}
	var initial []string
	for i := range 3 {
		name := fmt.Sprintf("etcd%d", i+1)
		m := member{
			name: name, host: fmt.Sprintf("demo%d", i+1), unit: name + ".service",
			clientAddr: fmt.Sprintf("127.0.0.1:%d", ports[2*i]),
			clientURL:  fmt.Sprintf("http://127.0.0.1:%d", ports[2*i]),
			peerURL:    fmt.Sprintf("http://127.0.0.1:%d", ports[2*i+1]),
			dataDir:    filepath.Join(dir, name, "data"),
			envFile:    filepath.Join(dir, name, "etcd.env"),
			logFile:    filepath.Join(dir, name, "etcd.log"),
		}
		c.members = append(c.members, m)
		initial = append(initial, m.name+"="+m.peerURL)
	}
	for _, m := range c.members {
		if err := c.layOut(m, strings.Join(initial, ","), self, args); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *cluster) layOut(m member, initial, self string, args []string) error {
	if err := os.MkdirAll(filepath.Dir(m.envFile), 0o700); err != nil {
		return fmt.Errorf("lay out %s: %w", m.name, err)
	}
	env := fmt.Sprintf(`# etcd reads its configuration from these variables, as Debian's package has it.
ETCD_NAME=%s
ETCD_DATA_DIR=%s
ETCD_LISTEN_PEER_URLS=%s
ETCD_INITIAL_ADVERTISE_PEER_URLS=%s
ETCD_LISTEN_CLIENT_URLS=%s
ETCD_ADVERTISE_CLIENT_URLS=%s
ETCD_INITIAL_CLUSTER=%s
ETCD_INITIAL_CLUSTER_STATE=new
ETCD_INITIAL_CLUSTER_TOKEN=demo
ETCD_QUOTA_BACKEND_BYTES=%d
ETCD_LOG_LEVEL=warn
`, m.name, m.dataDir, m.peerURL, m.peerURL, m.clientURL, m.clientURL, initial, quota)
	if err := os.WriteFile(m.envFile, []byte(env), 0o600); err != nil {
		return fmt.Errorf("lay out %s: %w", m.name, err)
	}
	return c.services.Define(procservices.Definition{
		Name: m.unit, Argv: append([]string{self}, args...), EnvFile: m.envFile, Dir: filepath.Dir(m.envFile),
		Ready: procservices.Ready{}, LogFile: m.logFile,
	})
}

// start starts all members and waits until each answers and has a leader.
func (c *cluster) start(ctx context.Context) error {
	errs := make(chan error, len(c.members))
	for _, m := range c.members {
		go func() {
			r, err := c.services.Start(ctx, m.unit)
			if err == nil && r.Result != "done" {
				err = fmt.Errorf("its start job ended with %q", r.Result)
			}
			errs <- err
		}()
	}
	var all error
	for range c.members {
		all = errors.Join(all, <-errs)
	}
	if all != nil {
		return fmt.Errorf("start the cluster: %w", all)
	}
	return c.healthy(ctx)
}

// healthy waits until every member's /health says so.
func (c *cluster) healthy(ctx context.Context) error {
	for _, m := range c.members {
		for !answersHealthy(ctx, m.clientURL+"/health") {
			if err := pause(ctx, 50*time.Millisecond); err != nil {
				return fmt.Errorf("%s did not become healthy: %w; see %s", m.name, err, m.logFile)
			}
		}
	}
	return nil
}

func answersHealthy(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

func (c *cluster) endpoints() []string {
	var list []string
	for _, m := range c.members {
		list = append(list, m.endpoint())
	}
	return list
}

// config is the etcd adapter's configuration for a member: what an
// administrator would write, or Fettle would discover on a host.
func (c *cluster) config(m member) []byte {
	return fmt.Appendf(nil, "system: demo\nname: %s\nunit: %s\ndata_dir: %s\nenv_file: %s\nclient_endpoint: %s\nsnapshot_dir: %s\n",
		m.name, m.unit, m.dataDir, m.envFile, m.clientURL, filepath.Join(c.dir, m.name, "snapshots"))
}

// kill ends a member's process with SIGKILL.
func (c *cluster) kill(ctx context.Context, m member) error {
	return c.services.Kill(ctx, m.unit, 9)
}

// lose ends a member with SIGKILL and makes its data directory be gone, as a
// replaced disk would. The data is moved into the demo's own folder.
func (c *cluster) lose(ctx context.Context, m member) error {
	gone := filepath.Join(c.dir, m.name, fmt.Sprintf("lost-%d", time.Now().UnixNano()))
	if err := os.Rename(m.dataDir, gone); err != nil {
		return fmt.Errorf("lose the data of %s: %w", m.name, err)
	}
	if err := c.kill(ctx, m); err != nil && !errors.Is(err, machine.ErrNotRunning) {
		return err
	}
	return nil
}

func isNoSpace(err error) bool {
	return errors.Is(err, rpctypes.ErrNoSpace) || strings.Contains(err.Error(), "database space exceeded")
}

// freePorts finds loopback ports that nobody listens on, and below those that the
// kernel hands out by itself, so that no connection takes one before its listener
// is there. They are all held open until all are found, so that none is found twice.
func freePorts(n int) ([]int, error) {
	var ports []int
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for tries := 0; len(ports) < n; tries++ {
		at := "127.0.0.1:" + strconv.Itoa(10_000+rand.IntN(20_000))
		if tries > 100 {
			at = "127.0.0.1:0" // whatever there is
		}
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", at)
		switch {
		case err != nil && tries > 100:
			return nil, fmt.Errorf("find a free port on loopback: %w", err)
		case err != nil:
			continue
		}
		held = append(held, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
