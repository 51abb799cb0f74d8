package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Remote is a lab that another process owns.
type Remote struct {
	name, dir string
	client    *http.Client
}

// ErrNoContact is wrapped by the errors of a lab that does not answer.
var ErrNoContact = errors.New("no contact")

// Open is the lab of that name under dir (empty: as [Config] has it). It connects only when it is used.
func Open(name, dir string) (*Remote, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	r := &Remote{name: name, dir: filepath.Join(labDir(dir), name)}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(r.dir, controlFile))
	}
	r.client = &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 5 * time.Minute}
	return r, nil
}

// List describes all labs under dir (empty: as [Config] has it), by name.
func List(ctx context.Context, dir string) ([]Info, error) {
	dir = labDir(dir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := []Info{}
	for _, e := range entries {
		if !e.IsDir() || checkName(e.Name()) != nil {
			continue
		}
		r, err := Open(e.Name(), dir)
		if err != nil {
			return nil, err
		}
		ask, cancel := context.WithTimeout(ctx, 5*time.Second)
		info, err := r.Info(ask)
		cancel()
		if err != nil {
			s, serr := readState(filepath.Join(dir, e.Name()))
			if serr != nil {
				continue // not a lab, or gone in between
			}
			info = Info{Name: s.Name, State: "starting", Prefix: prefix(s.Number), Owner: s.Owner, Number: s.Number}
			if held, err := tryLockExisting(filepath.Join(dir, e.Name(), lockFile)); err == nil {
				held.Close()
				info.State = "dead"
			}
		}
		out = append(out, info)
	}
	return out, nil
}

// Info asks the lab for its description.
func (r *Remote) Info(ctx context.Context) (Info, error) {
	var info Info
	body, err := r.ask(ctx, http.MethodGet, "/info", nil)
	if err == nil {
		err = json.Unmarshal(body, &info)
	}
	return info, err
}

// Order has the lab's owner do something, and returns when it is done, except for "down": see [Remote.Down].
func (r *Remote) Order(ctx context.Context, o Order) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = r.ask(ctx, http.MethodPost, "/order", data)
	return err
}

func (r *Remote) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("lab %s: %w", r.name, context.Cause(ctx))
		}
		return nil, fmt.Errorf("lab %s: %w: see \"lab list\": %w", r.name, ErrNoContact, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w: %w", r.name, ErrNoContact, err)
	}
	if resp.StatusCode >= 300 {
		return nil, errors.New(strings.TrimSpace(string(data)))
	}
	return data, nil
}

// Down ends the lab, as its owner's [Lab.Close] does, and waits until its folder is gone. If its owner is gone, it sweeps.
func (r *Remote) Down(ctx context.Context) error {
	if err := r.Order(ctx, Order{Do: "down"}); errors.Is(err, ErrNoContact) {
		if _, serr := Sweep(ctx, filepath.Dir(r.dir)); serr != nil {
			return serr
		}
		if _, serr := os.Stat(r.dir); errors.Is(serr, fs.ErrNotExist) {
			return nil
		}
		return err
	} else if err != nil {
		return err
	}
	for {
		if _, err := os.Stat(r.dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lab %s: wait for its end: %w", r.name, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stream runs a command in a host of the lab, as [Host.Stream] does. It does not go through the lab's owner.
func (r *Remote) Stream(ctx context.Context, host string, stdin io.Reader, stdout, stderr io.Writer, argv ...string) (int, error) {
	info, err := r.Info(ctx)
	if err != nil {
		return -1, err
	}
	h, err := machineHierarchies()
	if err != nil {
		return -1, err
	}
	for _, i := range info.Hosts {
		if i.Name != host {
			continue
		}
		switch {
		case len(argv) == 0:
			return -1, errors.New("no command given")
		case i.PID1 == 0:
			return -1, fmt.Errorf("exec on %s: %w", host, ErrOff)
		}
		group := h.group(numberName(info.Number), host)
		s, err := newSession(group, i.PID1, rand.Text(), argv)
		if err != nil {
			return -1, fmt.Errorf("exec on %s: %w", host, err)
		}
		defer s.end()
		return s.run(ctx, stdin, stdout, stderr, host)
	}
	return -1, fmt.Errorf("lab %s has no host %q: its hosts are h1 to h%d", r.name, host, len(info.Hosts))
}
