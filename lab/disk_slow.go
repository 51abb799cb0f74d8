package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Slow lets the host write to the disk at most that often a second, 0: as often as it can. The limit stays until it is
// lifted or the host's power is cut. It is the block controller's of the host's own group (io.max, or
// blkio.throttle.write_iops_device of the hybrid layout); where the machine has neither, it is an error.
func (d *Disk) Slow(writes int) error {
	data, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(d.Device), "dev"))
	if err != nil {
		return fmt.Errorf("slow disk %s: %w", d.Device, err)
	}
	number, limit := strings.TrimSpace(string(data)), "max"
	if writes > 0 {
		limit = fmt.Sprint(writes)
	}
	controls := map[string]string{filepath.Join(d.host.group.v2(), "io.max"): number + " wiops=" + limit}
	for _, dir := range d.host.group.dirs()[1:] {
		controls[filepath.Join(dir, "blkio.throttle.write_iops_device")] = fmt.Sprintf("%s %d", number, writes)
	}
	for file, line := range controls {
		if _, err := os.Stat(file); err != nil {
			continue
		}
		if err := os.WriteFile(file, []byte(line), 0); err != nil {
			return fmt.Errorf("slow disk %s: %w", d.Device, err)
		}
		return nil
	}
	return fmt.Errorf("slow disk %s: no block controller for the groups of this machine (CONFIG_BLK_DEV_THROTTLING, and io or blkio among its cgroup controllers)", d.Device)
}
