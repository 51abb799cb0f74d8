package executor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
)

// connectWait bounds connecting, which is local.
const connectWait = time.Second

// Client is Hands at the other end of a socket. It connects when it is first used, and
// anew after the connection ended. Close it when it is no longer used.
type Client struct {
	path string

	mu     sync.Mutex
	link   *link
	closed bool
	links  sync.WaitGroup
}

var _ Hands = (*Client)(nil)

// Dial prepares a client of the executor at a socket. Nothing is connected yet.
func Dial(path string) *Client { return &Client{path: path} }

// Close ends the connection, if there is one.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.link != nil {
		_ = c.link.conn.Close()
	}
	c.mu.Unlock()
	c.links.Wait()
	return nil
}

// link is one connection.
type link struct {
	conn net.Conn
	done chan struct{} // closed when it has ended

	write sync.Mutex // of what is written

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan response
	err     error // why it ended
}

// connected returns the connection, a new one if need be.
func (c *Client) connected(ctx context.Context) (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, net.ErrClosed
	}
	if c.link != nil {
		select {
		case <-c.link.done:
		default:
			return c.link, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, err
	}
	l := &link{conn: conn, done: make(chan struct{}), waiting: map[uint64]chan response{}}
	c.link = l
	c.links.Go(l.read)
	return l, nil
}

// read hands answers to who waits for them until the connection ends.
func (l *link) read() {
	in := bufio.NewReader(l.conn)
	for {
		var r response
		err := readFrame(in, &r)
		if err == nil && r.Schema != frameSchema {
			err = fmt.Errorf("the executor speaks schema %d, this agent schema %d (they are of different versions: restart both)", r.Schema, frameSchema)
		}
		l.mu.Lock()
		if err != nil {
			l.err = err
			l.mu.Unlock()
			_ = l.conn.Close()
			close(l.done)
			return
		}
		if ch := l.waiting[r.ID]; ch != nil {
			ch <- r // it has room for the one answer
			delete(l.waiting, r.ID)
		}
		l.mu.Unlock()
	}
}

// call makes one call. An error that wraps ErrAway says that nothing was handed over;
// one of class NoAnswer, that what was may have been done.
func call[R any](ctx context.Context, c *Client, m method, arg any) (R, error) {
	return begin[R](ctx, c, m, arg)()
}

// begin hands a call over, and returns how to wait for its answer.
func begin[R any](ctx context.Context, c *Client, m method, arg any) (wait func() (R, error)) {
	var none R
	not := func(err error) func() (R, error) { return func() (R, error) { return none, err } }
	r := request{Schema: frameSchema, Method: m}
	var err error
	if r.Arg, err = json.Marshal(arg); err != nil {
		return not(fmt.Errorf("executor: %s: %w", m, err))
	}
	if at, has := ctx.Deadline(); has {
		r.Within = max(1, int64(time.Until(at)))
	}
	l, err := c.connected(ctx)
	if err != nil {
		return not(fmt.Errorf("%w: %w (does fettle-executor.service run?)", ErrAway, err))
	}
	ch := make(chan response, 1)
	l.mu.Lock()
	l.next++
	r.ID = l.next
	l.waiting[r.ID] = ch
	l.mu.Unlock()
	forget := func() {
		l.mu.Lock()
		delete(l.waiting, r.ID)
		l.mu.Unlock()
	}
	l.write.Lock()
	_ = l.conn.SetWriteDeadline(time.Now().Add(writeWait))
	err = writeFrame(l.conn, r)
	l.write.Unlock()
	if err != nil {
		_ = l.conn.Close() // a message may be there in part
		forget()
		return not(&fettle.Error{Op: "executor: " + string(m), Class: fettle.NoAnswer, Err: err, Hint: "does fettle-executor.service run?"})
	}
	return func() (R, error) {
		defer forget()
		select {
		case a := <-ch:
			return result[R](m, a)
		case <-l.done:
			select {
			case a := <-ch: // it came before the end
				return result[R](m, a)
			default:
			}
			return none, &fettle.Error{Op: "executor: " + string(m), Class: fettle.NoAnswer, Err: errors.Join(errors.New("the connection ended before it answered"), l.err), Hint: "does fettle-executor.service run?"}
		case <-ctx.Done():
			return none, ctx.Err()
		}
	}
}

func result[R any](m method, a response) (R, error) {
	var out R
	if a.Error != nil {
		return out, a.Error.err()
	}
	if len(a.Result) > 0 {
		if err := json.Unmarshal(a.Result, &out); err != nil {
			return out, fmt.Errorf("executor: the answer to %s: %w", m, err)
		}
	}
	return out, nil
}

// Greet implements Hands.
func (c *Client) Greet(ctx context.Context) (Greeting, error) {
	return call[Greeting](ctx, c, greet, nil)
}

// Pulse implements Hands.
func (c *Client) Pulse(ctx context.Context) (Pulse, error) { return call[Pulse](ctx, c, pulse, nil) }

// Meet implements Hands.
func (c *Client) Meet(ctx context.Context, in Introduction) (string, error) {
	return call[string](ctx, c, meet, in)
}

// Follow implements Hands.
func (c *Client) Follow(ctx context.Context, head warrant.Signed) (string, error) {
	return call[string](ctx, c, follow, head)
}

// Show is Follow that does not wait for the answer: what is handed over after it comes
// to the executor after it. wait must be called.
func (c *Client) Show(ctx context.Context, head warrant.Signed) (wait func() (string, error)) {
	return begin[string](ctx, c, follow, head)
}

// Told implements Hands.
func (c *Client) Told(ctx context.Context, w Word) error {
	_, err := call[any](ctx, c, told, w)
	return err
}

// Believe implements Hands. Over the socket the serial is lost with an error: the next
// greeting says it.
func (c *Client) Believe(ctx context.Context, words []pki.SignedWord) (int64, error) {
	return call[int64](ctx, c, believe, words)
}

// Permit implements Hands.
func (c *Client) Permit(ctx context.Context) (Standing, error) {
	return call[Standing](ctx, c, standing, nil)
}

// Armed implements Hands.
func (c *Client) Armed(ctx context.Context) (Arming, error) {
	return call[Arming](ctx, c, arming, nil)
}

// confirmation is the argument of Confirm.
type confirmation struct {
	ID    string        `json:"id"`
	Since time.Duration `json:"since_ns"`
}

// Confirm implements Hands.
func (c *Client) Confirm(ctx context.Context, id string, since time.Duration) error {
	_, err := call[any](ctx, c, confirm, confirmation{id, since})
	return err
}

// Do implements Hands.
func (c *Client) Do(ctx context.Context, o Order) (fettle.Outcome, error) {
	return call[fettle.Outcome](ctx, c, do, o)
}

// Recover implements Hands.
func (c *Client) Recover(ctx context.Context, o Order) (fettle.Outcome, error) {
	return call[fettle.Outcome](ctx, c, recovering, o)
}

// Preview implements Hands.
func (c *Client) Preview(ctx context.Context, o Order) (fettle.Preview, error) {
	return call[fettle.Preview](ctx, c, preview, o)
}

// CheckWrite implements Hands.
func (c *Client) CheckWrite(ctx context.Context, mountpoint string) error {
	_, err := call[any](ctx, c, checkWrite, mountpoint)
	return err
}

// looking is the argument of Look and of Changed.
type looking struct {
	From     Outlook          `json:"from"`
	Subjects []fettle.Subject `json:"subjects,omitempty"`
	Known    uint64           `json:"known,omitempty"`
}

// Look implements Hands.
func (c *Client) Look(ctx context.Context, from Outlook, subjects ...fettle.Subject) ([]fettle.Observation, error) {
	return call[[]fettle.Observation](ctx, c, look, looking{From: from, Subjects: subjects})
}

// Changed implements Hands.
func (c *Client) Changed(ctx context.Context, from Outlook, known uint64) (uint64, error) {
	return call[uint64](ctx, c, changed, looking{From: from, Known: known})
}
