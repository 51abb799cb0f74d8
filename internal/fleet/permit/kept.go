package permit

import (
	"encoding/json"
	"fmt"
	"time"
)

// Kept is the last permit that a host took, as it keeps it.
type Kept struct {
	Schema int       `json:"schema"`
	Taken  time.Time `json:"taken"` // by the host's wall clock: it is never earlier again
	Signed
}

// keptSchema is the version of Kept.
const keptSchema = 1

// Text is what is kept, to be read by Parse.
func (k Kept) Text() ([]byte, error) {
	k.Schema = keptSchema
	data, err := json.Marshal(k)
	if err != nil {
		return nil, fmt.Errorf("the permit that is kept: %w", err)
	}
	return data, nil
}

// Parse reads what Text wrote, with blanks behind it. It takes any bytes, and
// verifies nothing: Open does.
func Parse(data []byte) (Kept, error) {
	var k Kept
	if err := json.Unmarshal(data, &k); err != nil {
		return Kept{}, fmt.Errorf("the permit that is kept cannot be read: %w", err)
	}
	if k.Schema != keptSchema || k.Taken.IsZero() || len(k.Note) == 0 {
		return Kept{}, fmt.Errorf("the permit that is kept has schema %d; this version reads schema %d", k.Schema, keptSchema)
	}
	return k, nil
}
