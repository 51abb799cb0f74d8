package member

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/serf/coordinate"
)

// coordinates keeps this node's place in the network's delay space, and what the
// others said of theirs (Vivaldi, as Serf has it: Dabek et al. 2004). With them the
// round trip between any two members is estimated without their having met.
//
// Safe for concurrent use.
type coordinates struct {
	client *coordinate.Client

	mu     sync.Mutex
	others map[string]*coordinate.Coordinate
}

func newCoordinates() (*coordinates, error) {
	client, err := coordinate.NewClient(coordinate.DefaultConfig())
	if err != nil {
		return nil, fmt.Errorf("network coordinates: %w", err)
	}
	return &coordinates{client: client, others: map[string]*coordinate.Coordinate{}}, nil
}

// met takes in a measured round trip to a member, and where it says that it is.
func (c *coordinates) met(name string, at *coordinate.Coordinate, rtt time.Duration) error {
	if _, err := c.client.Update(name, at, rtt); err != nil {
		return fmt.Errorf("network coordinate of %s: %w", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.others[name] = at
	return nil
}

func (c *coordinates) forget(name string) {
	c.client.ForgetNode(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.others, name)
}

// between estimates the round trip between two members; self is this one. False: one
// of them was never met.
func (c *coordinates) between(self, a, b string) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := func(name string) *coordinate.Coordinate {
		if name == self {
			return c.client.GetCoordinate()
		}
		return c.others[name]
	}
	from, to := at(a), at(b)
	if from == nil || to == nil {
		return 0, false
	}
	if a == b {
		return 0, true
	}
	return max(from.DistanceTo(to), 0), true
}

// Acknowledgements of pings carry the coordinate: version (1), scheduling delay in
// microseconds (4, big endian), then as big-endian IEEE 754 doubles the vector,
// error, adjustment and height, in seconds.
const (
	coordinateVersion = 1
	coordinateSize    = 1 + 4 + 8*(coordinateDims+3)
	coordinateDims    = 8 // of coordinate.DefaultConfig
	// coordinateFar is farther than anything is, in seconds. A member that says so
	// is not believed: it would drag everybody along.
	coordinateFar = 60
)

func (c *coordinates) payload(delay time.Duration) []byte {
	own := c.client.GetCoordinate()
	data := make([]byte, 0, coordinateSize)
	data = append(data, coordinateVersion)
	data = binary.BigEndian.AppendUint32(data, microseconds(delay))
	for _, f := range own.Vec {
		data = binary.BigEndian.AppendUint64(data, math.Float64bits(f))
	}
	for _, f := range []float64{own.Error, own.Adjustment, own.Height} {
		data = binary.BigEndian.AppendUint64(data, math.Float64bits(f))
	}
	return data
}

// parseCoordinate reads a payload. It takes any bytes.
func parseCoordinate(data []byte) (*coordinate.Coordinate, time.Duration, error) {
	if len(data) != coordinateSize || data[0] != coordinateVersion {
		return nil, 0, fmt.Errorf("network coordinate of %d bytes, or of another version", len(data))
	}
	delay := time.Duration(binary.BigEndian.Uint32(data[1:])) * time.Microsecond
	at := coordinate.NewCoordinate(coordinate.DefaultConfig())
	fields := make([]float64, coordinateDims+3)
	for i := range fields {
		fields[i] = math.Float64frombits(binary.BigEndian.Uint64(data[5+8*i:]))
		if !(math.Abs(fields[i]) <= coordinateFar) { // also false for what is no number
			return nil, 0, errors.New("network coordinate beyond anything that is")
		}
	}
	copy(at.Vec, fields)
	at.Error, at.Adjustment, at.Height = fields[coordinateDims], fields[coordinateDims+1], fields[coordinateDims+2]
	if at.Error < 0 || at.Height < 0 {
		return nil, 0, errors.New("network coordinate with a negative height or error")
	}
	return at, delay, nil
}
