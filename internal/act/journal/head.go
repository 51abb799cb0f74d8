package journal

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Head is the state of a journal in one line: how many records, and the root of
// the Merkle tree over them. Equal heads have equal records.
type Head struct {
	Size int64     `json:"size"`
	Root tlog.Hash `json:"root"`
}

// Head returns the head over all durable records.
func (j *Journal) Head() (Head, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	root, err := j.tree.root()
	if err != nil {
		return Head{}, fmt.Errorf("journal %s: head: %w", j.path, err)
	}
	return Head{Size: j.tree.size, Root: root}, nil
}

// CheckHead returns a *Forked unless the journal goes on from a head that was
// seen earlier: at least as long, and the same up to there.
func (j *Journal) CheckHead(seen Head) error {
	have, err := j.Head()
	if err != nil {
		return err
	}
	if seen.Size > have.Size || seen.Size < 0 {
		return &Forked{Path: j.path, Seen: seen, Have: have, Why: fmt.Sprintf("it has %d records, and %d had been seen", have.Size, seen.Size)}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	root, err := tlog.TreeHash(seen.Size, &j.tree)
	if err != nil {
		return fmt.Errorf("journal %s: check head: %w", j.path, err)
	}
	if root != seen.Root {
		return &Forked{Path: j.path, Seen: seen, Have: have, Why: fmt.Sprintf("its first %d records are others than those seen", seen.Size)}
	}
	return nil
}

// ProveRecord proves that a record is in the tree of a head with size records.
func (j *Journal) ProveRecord(seq Seq, size int64) (tlog.RecordProof, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if size > j.tree.size || seq < 0 || int64(seq) >= size {
		return nil, fmt.Errorf("journal %s: prove record %d of %d: there are %d", j.path, seq, size, j.tree.size)
	}
	p, err := tlog.ProveRecord(size, int64(seq), &j.tree)
	if err != nil {
		return nil, fmt.Errorf("journal %s: prove record %d: %w", j.path, seq, err)
	}
	return p, nil
}

// ProveGrowth proves that the journal of size records begins with that of older
// records.
func (j *Journal) ProveGrowth(older, size int64) (tlog.TreeProof, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if size > j.tree.size || older < 1 || older > size {
		return nil, fmt.Errorf("journal %s: prove growth from %d to %d records: there are %d", j.path, older, size, j.tree.size)
	}
	p, err := tlog.ProveTree(size, older, &j.tree)
	if err != nil {
		return nil, fmt.Errorf("journal %s: prove growth: %w", j.path, err)
	}
	return p, nil
}

// CheckGrowth verifies a proof of ProveGrowth: an agent calls it with the last
// signed head that it kept. An error means a fork. From an empty journal
// everything grows.
func CheckGrowth(p tlog.TreeProof, older, newer Head) error {
	if older.Size == 0 {
		return nil
	}
	if err := tlog.CheckTree(p, newer.Size, newer.Root, older.Size, older.Root); err != nil {
		return &Forked{Path: "of the peer", Seen: older, Have: newer, Why: err.Error()}
	}
	return nil
}

// CheckRecord verifies a proof of ProveRecord for the record with this leaf
// hash.
func CheckRecord(p tlog.RecordProof, head Head, seq Seq, leaf tlog.Hash) error {
	if err := tlog.CheckRecord(p, head.Size, head.Root, int64(seq), leaf); err != nil {
		return fmt.Errorf("record %d is not proven to be in the journal of %d records: %w", seq, head.Size, err)
	}
	return nil
}

// SignHead writes a head as a signed note: a C2SP tlog-checkpoint of three lines
// (origin, size, root in base64) with one signature a signer. The origin names
// whose log it is, without blanks.
func SignHead(head Head, origin string, signers ...note.Signer) ([]byte, error) {
	if origin == "" || strings.ContainsAny(origin, " \t\r\n+") {
		return nil, fmt.Errorf("sign head: origin %q: want one word without '+'", origin)
	}
	if len(signers) == 0 {
		return nil, fmt.Errorf("sign head of %s: no signer", origin)
	}
	text := fmt.Sprintf("%s\n%d\n%s\n", origin, head.Size, head.Root)
	msg, err := note.Sign(&note.Note{Text: text}, signers...)
	if err != nil {
		return nil, fmt.Errorf("sign head of %s: %w", origin, err)
	}
	return msg, nil
}

// OpenHead verifies a signed head of this origin. At least one known signature
// must be good, and none bad. Lines after the third are passed over.
func OpenHead(msg []byte, origin string, known note.Verifiers) (Head, error) {
	n, err := note.Open(msg, known)
	if err != nil {
		return Head{}, fmt.Errorf("signed head of %s: %w", origin, err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 || lines[0] != origin {
		return Head{}, fmt.Errorf("signed head: it is of %q, not of %q", lines[0], origin)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return Head{}, fmt.Errorf("signed head of %s: size %q is not a number of records", origin, lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return Head{}, fmt.Errorf("signed head of %s: root %q is not a hash in base64", origin, lines[2])
	}
	return Head{Size: size, Root: tlog.Hash(root)}, nil
}
