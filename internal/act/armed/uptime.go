package armed

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const uptimeFile = "/proc/uptime"

// Uptime is the time since this machine was booted, suspend included.
func (a *Arms) Uptime(ctx context.Context) (time.Duration, error) { return a.uptime(ctx) }

func (a *Arms) uptime(ctx context.Context) (time.Duration, error) {
	data, err := a.m.Files.ReadFile(ctx, uptimeFile, 256)
	if err != nil {
		return 0, fmt.Errorf("time since boot: %w", err)
	}
	return parseUptime(string(data))
}

// parseUptime reads the first number of /proc/uptime: seconds with two decimals,
// of CLOCK_BOOTTIME (fs/proc/uptime.c). Its grain is ten milliseconds.
func parseUptime(text string) (time.Duration, error) {
	first, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	whole, part, _ := strings.Cut(first, ".")
	seconds, err := strconv.ParseUint(whole, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s: %.40q is no time", uptimeFile, text)
	}
	if len(part) > 2 {
		part = part[:2]
	}
	hundredths := uint64(0)
	if part != "" {
		if hundredths, err = strconv.ParseUint((part + "0")[:2], 10, 8); err != nil {
			return 0, fmt.Errorf("%s: %.40q is no time", uptimeFile, text)
		}
	}
	return time.Duration(seconds)*time.Second + time.Duration(hundredths)*10*time.Millisecond, nil
}
