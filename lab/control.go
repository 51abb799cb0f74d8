package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// Info describes a lab to other processes. Fields are only ever added.
type Info struct {
	Name   string       `json:"name"`
	State  string       `json:"state"` // "up"; "dead": its owner is gone, Sweep removes it; "starting" or closing: it does not answer
	Prefix netip.Prefix `json:"prefix"`
	Owner  int          `json:"owner"` // process id
	Image  string       `json:"image,omitempty"`
	Hosts  []HostInfo   `json:"hosts,omitempty"`
	Faults []string     `json:"faults,omitempty"`
	Number int          `json:"number"`
}

// HostInfo describes a host to other processes.
type HostInfo struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	Power   Power      `json:"power"`
	Boots   int        `json:"boots"`
	PID1    int        `json:"pid1,omitempty"` // of the machine; what nsenter(1) wants
	Console string     `json:"console"`        // file on the machine
	Disks   []string   `json:"disks,omitempty"`
}

// Info describes the lab as it is now.
func (l *Lab) Info() Info {
	info := Info{Name: l.cfg.Name, State: "up", Prefix: l.prefix, Owner: os.Getpid(), Image: l.image, Faults: l.Faults(), Number: l.number}
	for _, h := range l.hosts {
		i := HostInfo{Name: h.name, Address: h.addr, Power: h.Power(), Boots: h.Boots(), Console: h.ConsolePath()}
		h.mu.Lock()
		if h.boot != nil {
			i.PID1 = h.boot.leader()
		}
		h.mu.Unlock()
		for _, d := range h.Disks() {
			i.Disks = append(i.Disks, d.Device)
		}
		info.Hosts = append(info.Hosts, i)
	}
	return info
}

// Order is something that another process asks a lab's owner to do. Which fields count depends on Do.
type Order struct {
	Do      string        `json:"do"`              // boot poweroff shutdown freeze thaw; partition cut isolate heal loss delay; down
	Hosts   []string      `json:"hosts,omitempty"` // all that a power order is for; the first side of a network order
	To      []string      `json:"to,omitempty"`    // its second side
	Percent float64       `json:"percent,omitempty"`
	Base    time.Duration `json:"base,omitempty"` // nanoseconds
	Jitter  time.Duration `json:"jitter,omitempty"`
}

// serve answers other processes on a socket in the lab's folder, which only root may enter.
func (l *Lab) serve() error {
	var listen net.ListenConfig
	listener, err := listen.Listen(l.life, "unix", filepath.Join(l.dir, controlFile))
	if err != nil {
		return fmt.Errorf("lab: control socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /info", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(l.Info()) // it fails if who asked has gone
	})
	mux.HandleFunc("POST /order", l.order)
	server := &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return l.life }, ReadHeaderTimeout: toolDeadline}
	context.AfterFunc(l.life, func() { server.Close() })
	return l.started(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintf(l.cfg.Progress, "lab %s: it can no longer be reached by other processes: %v\n", l.cfg.Name, err)
		}
	})
}

func (l *Lab) order(w http.ResponseWriter, r *http.Request) {
	var o Order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&o); err != nil {
		http.Error(w, "cannot read the order: "+err.Error(), http.StatusBadRequest)
		return
	}
	if o.Do == "down" {
		w.WriteHeader(http.StatusAccepted)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return // who asked has gone, and may ask again
		}
		go l.Close() // it waits for this server, so this server cannot wait for it
		return
	}
	if err := l.obey(r.Context(), o); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

func (l *Lab) obey(ctx context.Context, o Order) error {
	hosts, err1 := l.named(o.Hosts)
	to, err2 := l.named(o.To)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	power := map[string]func(*Host, context.Context) error{
		"boot": (*Host).Boot, "poweroff": (*Host).PowerOff, "shutdown": (*Host).Shutdown, "freeze": (*Host).Freeze, "thaw": (*Host).Thaw,
		"isolate": func(h *Host, ctx context.Context) error { return l.Isolate(ctx, h) },
	}
	if do := power[o.Do]; do != nil {
		if len(hosts) == 0 {
			return fmt.Errorf("%s: name at least one host", o.Do)
		}
		return l.each(func(h *Host) error {
			for _, wanted := range hosts {
				if wanted == h {
					return do(h, ctx)
				}
			}
			return nil
		})
	}
	switch o.Do {
	case "partition":
		return l.Partition(ctx, hosts, to)
	case "cut":
		return l.CutOneWay(ctx, hosts, to)
	case "heal":
		return l.Heal(ctx)
	case "loss":
		return pairs(hosts, to, func(a, b *Host) error { return l.Loss(ctx, a, b, o.Percent) })
	case "delay":
		return pairs(hosts, to, func(a, b *Host) error { return l.Delay(ctx, a, b, o.Base, o.Jitter) })
	}
	return fmt.Errorf("order %q: not known to this version of the lab", o.Do)
}

// pairs calls do for each of from with each of to; an empty list is everybody.
func pairs(from, to []*Host, do func(a, b *Host) error) error {
	if len(from) == 0 {
		from = []*Host{nil}
	}
	if len(to) == 0 {
		to = []*Host{nil}
	}
	for _, a := range from {
		for _, b := range to {
			if err := do(a, b); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Lab) named(names []string) ([]*Host, error) {
	var out []*Host
	for _, name := range names {
		h, err := l.HostByName(name)
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}
