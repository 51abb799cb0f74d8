package linuxmachine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

const (
	logLinesMaximum = 10_000
	logBytes        = 8 << 20
)

// Log reads the journal of the unit's present invocation, or of its last one:
// what the unit's processes wrote and what systemd said of it, as journalctl
// shows them. A unit that has no invocation in this boot has no log.
func (s *services) Log(ctx context.Context, name string, lines int) ([]string, error) {
	u, err := s.Unit(ctx, name)
	if err != nil {
		return nil, err
	}
	if lines <= 0 || u.InvocationID == "" {
		return nil, nil
	}
	entries, err := s.journal(ctx, min(lines, logLinesMaximum), "MESSAGE",
		"_SYSTEMD_INVOCATION_ID="+u.InvocationID, "+", "_PID=1", "INVOCATION_ID="+u.InvocationID)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	out := []string{}
	for _, e := range entries {
		for line := range strings.Lines(e["MESSAGE"]) {
			out = append(out, strings.TrimRight(line, "\r\n"))
		}
	}
	return out[max(0, len(out)-lines):], nil
}

// journal returns these fields of the last entries of this boot that match,
// oldest first.
func (s *services) journal(ctx context.Context, lines int, fields string, match ...string) ([]map[string]string, error) {
	if os.Geteuid() == 0 {
		// journald may still have what was just written in its socket. Only root may
		// ask it to read that first; its refusal makes the answer older, not wrong.
		_, _ = s.commands.Run(ctx, machine.Command{Path: "journalctl", Args: []string{"--sync"}})
	}
	args := append([]string{
		"--quiet", "--no-pager", "--boot", "--output=json", "--output-fields=" + fields, "--lines=" + strconv.Itoa(lines),
	}, match...)
	out, err := s.commands.Run(ctx, machine.Command{Path: "journalctl", Args: args, Limit: logBytes})
	if err != nil {
		return nil, err
	}
	if out.Exit != 0 {
		return nil, &fettle.Error{
			Op: "journalctl", Class: fettle.Broken, Err: fmt.Errorf("exit %d: %s", out.Exit, bytes.TrimSpace(out.Stderr)),
			Hint: "members of the group systemd-journal and root may read the journal",
		}
	}
	return parseJournal(out.Stdout, out.Truncated)
}

// parseJournal reads journalctl's --output=json: one object a line, each field a
// string, null (too long to show), an array of numbers (bytes that are not
// UTF-8), or an array of those when the field is there several times, of which
// the first counts. A cut output ends in half a line, which is left out.
func parseJournal(data []byte, cut bool) ([]map[string]string, error) {
	if cut {
		data = data[:bytes.LastIndexByte(data, '\n')+1]
	}
	var out []map[string]string
	number := 0
	for line := range bytes.Lines(data) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		var raw map[string]json.RawMessage
		if err := json.Unmarshal(line, &raw); err != nil {
			return nil, fmt.Errorf("journalctl, line %d: %w", number, err)
		}
		entry := make(map[string]string, len(raw))
		for name, value := range raw {
			text, err := journalValue(value)
			if err != nil {
				return nil, fmt.Errorf("journalctl, line %d, field %s: %w", number, name, err)
			}
			entry[name] = text
		}
		out = append(out, entry)
	}
	return out, nil
}

func journalValue(raw json.RawMessage) (string, error) {
	var text string
	if string(raw) == "null" {
		return "(too long to show)", nil
	}
	if json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return "", fmt.Errorf("neither text nor list: %.40q", raw)
	}
	if len(list) == 0 {
		return "", nil
	}
	var b []byte
	for _, e := range list {
		n, err := strconv.ParseUint(string(e), 10, 8)
		if err != nil {
			if e[0] == '[' || e[0] == '"' {
				return journalValue(list[0])
			}
			return "", fmt.Errorf("%.40q is no byte", e)
		}
		b = append(b, byte(n))
	}
	return strings.ToValidUTF8(string(b), "\uFFFD"), nil
}
