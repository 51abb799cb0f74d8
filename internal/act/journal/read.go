package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// Record is one record as it was appended.
type Record struct {
	Seq    Seq
	Schema int
	Kind   string
	At     time.Time       // when it was written, for people
	Data   json.RawMessage // kept as it is, with fields that this version does not know
	Hash   tlog.Hash       // its leaf in the tree
}

// Decode reads the record's JSON into v. Unknown fields are passed over.
func (r Record) Decode(v any) error {
	if err := json.Unmarshal(r.Data, v); err != nil {
		return fmt.Errorf("journal record %d (%s, schema %d): %w", r.Seq, r.Kind, r.Schema, err)
	}
	return nil
}

// Read calls each for every durable record from a number on, in order, until it
// returns an error or ctx ends. Records that are appended meanwhile may or may
// not be seen. Of a damaged journal it reads what is whole, then returns the
// *Damaged.
func (j *Journal) Read(ctx context.Context, from Seq, each func(Record) error) error {
	if from < 0 {
		return fmt.Errorf("journal %s: read from record %d; the first is 0", j.path, from)
	}
	j.mu.Lock()
	end, size := j.end, j.tree.size
	at := int64(headerSize)
	if tile := int(from / tileSize); tile < len(j.tree.offsets) {
		at = j.tree.offsets[tile]
	}
	j.mu.Unlock()
	w := &window{r: j.file, size: end}
	for next := from - from%tileSize; int64(next) < size && int64(from) < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, n, err := w.frameAt(at)
		if err != nil {
			return fmt.Errorf("journal %s: read record %d at byte %d: %w", j.path, next, at, err)
		}
		at += int64(n)
		if f.kindOf != typeRecord {
			continue
		}
		next++
		if f.number < int64(from) {
			continue
		}
		err = each(Record{Seq: Seq(f.number), Schema: f.schema, Kind: f.kind, At: f.at, Data: bytes.Clone(f.payload), Hash: tlog.RecordHash(f.leaf)})
		if err != nil {
			return err
		}
	}
	if j.opened.Damage != nil {
		return j.opened.Damage
	}
	return nil
}

// At returns one record.
func (j *Journal) At(ctx context.Context, seq Seq) (Record, error) {
	var out Record
	err := j.Read(ctx, seq, func(r Record) error {
		out = r
		return errStop
	})
	switch {
	case errors.Is(err, errStop):
		return out, nil
	case err != nil:
		return Record{}, err
	}
	return Record{}, fmt.Errorf("journal %s: there is no record %d", j.path, seq)
}

// errStop ends a Read that has what it wanted. It never leaves this package.
var errStop = errors.New("enough")
