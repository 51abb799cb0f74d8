package wire

import (
	"encoding/json"
	"fmt"
)

// Schema is what this program speaks; Oldest is the oldest that it understands.
const (
	Schema = 1
	Oldest = max(1, Schema-2)
)

// MaxMessage is the largest message in bytes, either way.
const MaxMessage = 4 << 20

// Chunk is how large a batch may grow before it is sent: a fast answer does not
// wait behind megabytes.
const Chunk = 256 << 10

// MaxItem is the largest value in a field named json, in bytes: a message has
// room for one of them and what goes with it.
const MaxItem = 3 << 20

// CheckSchema refuses what a peer speaks when it is too old.
func CheckSchema(theirs int32) error {
	if theirs < Oldest {
		return fmt.Errorf("the peer speaks schema %d, and the oldest that is understood here is %d (upgrade it)", theirs, Oldest)
	}
	return nil
}

// Pack writes one value of the vocabulary for a field named json.
func Pack(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("pack %T: %w", v, err)
	}
	if len(data) > MaxItem {
		return nil, fmt.Errorf("pack %T: %d bytes, at most %d are sent", v, len(data), MaxItem)
	}
	return data, nil
}

// Unpack reads a field named json. Unknown fields are passed over.
func Unpack[T any](data []byte) (T, error) {
	var v T
	if len(data) > MaxItem {
		return v, fmt.Errorf("unpack %T: %d bytes, at most %d are taken", v, len(data), MaxItem)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("unpack %T: %w", v, err)
	}
	return v, nil
}
