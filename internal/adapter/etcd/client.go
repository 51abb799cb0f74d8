package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"fettle/internal/machine"
)

// callTimeout is how long a member may take to answer a probe: a hundred times
// what it takes on a busy machine, and as long as its own election timeout.
const callTimeout = time.Second

// endpoint is the way to exactly one member. There is no client library between:
// its retries, its balancing over endpoints and its waiting for a connection hide
// what a probe is there to see.
type endpoint struct {
	url, host   string
	conn        *grpc.ClientConn
	kv          pb.KVClient
	cluster     pb.ClusterClient
	maintenance pb.MaintenanceClient

	shows    bool        // a certificate
	answered atomic.Bool // at least once
}

// deniedError is a connection that a member ended before it had ever answered.
type deniedError struct {
	err   error
	shows bool
}

func (e *deniedError) Error() string {
	if e.shows {
		return e.err.Error() + " (it may not accept the client certificate that is configured)"
	}
	return e.err.Error() + " (it may be asking for a client certificate, and none is configured)"
}
func (e *deniedError) Unwrap() error { return e.err }

// explain tells a member that does not take the client's certificate, or misses
// it, from one that does not answer: with TLS 1.3 the client learns of it after
// its own handshake, as whatever the broken connection happens to look like.
func (e *endpoint) explain(err error) error {
	if err == nil || !strings.HasPrefix(e.url, "https://") || e.answered.Load() || sortError(err) != noOutcome {
		return err
	}
	text := err.Error()
	broken := status.Code(err) == codes.Unavailable || status.Code(err) == codes.DeadlineExceeded && strings.Contains(text, "latest balancer error")
	if !broken || strings.Contains(text, "authentication handshake failed") {
		return err
	}
	return &deniedError{err, e.shows}
}

// dialer makes endpoints and keeps them. Nothing is connected before the first
// call.
type dialer struct {
	tls  *tls.Config // nil: for http URLs only
	http *http.Client

	mu   sync.Mutex
	open map[string]*endpoint
}

func newDialer(t *tls.Config) *dialer {
	transport := &http.Transport{
		TLSClientConfig: t, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute,
		DialContext: (&net.Dialer{Timeout: callTimeout}).DialContext,
	}
	return &dialer{tls: t, http: &http.Client{Transport: transport}, open: map[string]*endpoint{}}
}

// to returns the endpoint of a client URL.
func (d *dialer) to(clientURL string) (*endpoint, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.open[clientURL]; e != nil {
		return e, nil
	}
	u, err := url.Parse(clientURL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("client URL %q: want http:// or https://, host and port", clientURL)
	}
	creds := insecure.NewCredentials()
	if u.Scheme == "https" {
		config := d.tls
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		creds = credentials.NewTLS(config.Clone())
	}
	conn, err := grpc.NewClient("passthrough:///"+u.Host,
		grpc.WithTransportCredentials(creds), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		// A member that comes back is seen within the interval of a probe.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: callTimeout},
			MinConnectTimeout: callTimeout,
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("client URL %q: %w", clientURL, err)
	}
	e := &endpoint{url: clientURL, host: u.Host, shows: d.tls != nil && d.tls.GetClientCertificate != nil, conn: conn, kv: pb.NewKVClient(conn), cluster: pb.NewClusterClient(conn), maintenance: pb.NewMaintenanceClient(conn)}
	d.open[clientURL] = e
	return e, nil
}

// dialError is a connection that could not be made, just now.
type dialError struct{ err error }

func (e *dialError) Error() string { return "connect: " + e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// reach makes sure that what a call answers is so now: a connection that failed is
// not tried again at once, and calls on it fail meanwhile with the old reason.
func (e *endpoint) reach(ctx context.Context) ([]grpc.CallOption, error) {
	if s := e.conn.GetState(); s == connectivity.Ready || s == connectivity.Idle {
		return nil, nil
	}
	d := net.Dialer{}
	conn, err := d.DialContext(ctx, "tcp", e.host)
	if err != nil {
		return nil, &dialError{err}
	}
	_ = conn.Close() // it has said what it was asked
	e.conn.ResetConnectBackoff()
	return []grpc.CallOption{grpc.WaitForReady(true)}, nil
}

// forget closes endpoints that no member has any more.
func (d *dialer) forget(keep map[string]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range sortedKeys(d.open) {
		if !keep[u] {
			_ = d.open[u].conn.Close() // whatever it answers, it is not used any more
			delete(d.open, u)
		}
	}
}

func (d *dialer) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, u := range sortedKeys(d.open) {
		errs = append(errs, d.open[u].conn.Close())
		delete(d.open, u)
	}
	d.http.CloseIdleConnections()
	return errors.Join(errs...)
}

// get fetches a page of at most limit bytes over HTTP.
func (d *dialer) get(ctx context.Context, pageURL string, limit int64) (code int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, pageURL, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return 0, nil, err
	}
	if int64(len(body)) > limit {
		return 0, nil, fmt.Errorf("%s: more than %d bytes", pageURL, limit)
	}
	return resp.StatusCode, body, nil
}

// loadTLS reads the certificates; nil without any. The key pair is read again at
// each handshake, so that a renewed one is taken without a restart.
func loadTLS(ctx context.Context, files machine.Files, c TLS) (*tls.Config, error) {
	if c == (TLS{}) {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		data, err := files.ReadFile(ctx, c.CA, maxPEM)
		if err != nil {
			return nil, fmt.Errorf("etcd configuration: tls.ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("etcd configuration: tls.ca: %s: no certificate in it (want PEM)", c.CA)
		}
	}
	if c.Cert != "" {
		pair := func(ctx context.Context) (*tls.Certificate, error) {
			cert, err := files.ReadFile(ctx, c.Cert, maxPEM)
			if err != nil {
				return nil, err
			}
			key, err := files.ReadFile(ctx, c.Key, maxPEM)
			if err != nil {
				return nil, err
			}
			p, err := tls.X509KeyPair(cert, key)
			return &p, err
		}
		if _, err := pair(ctx); err != nil {
			return nil, fmt.Errorf("etcd configuration: tls.cert and tls.key: %w", err)
		}
		config.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			ctx, cancel := context.WithTimeout(info.Context(), callTimeout)
			defer cancel()
			return pair(ctx)
		}
	}
	return config, nil
}

// maxPEM bounds a file of certificates.
const maxPEM = 1 << 20
