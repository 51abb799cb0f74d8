package linuxmachine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"

	"fettle/internal/fettle"
)

// become has a program run as an account, with its groups, in the environment
// that names it (environ(7)). Variables that the caller set stay as they are.
func become(cmd *exec.Cmd, name string) error {
	u, err := user.Lookup(name)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return fettle.Refuse("command", "", "name an account of this machine", "there is no user %q", name)
	}
	if err != nil {
		return fmt.Errorf("look up user %s: %w", name, err)
	}
	cmd.Env = append([]string{"HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username}, cmd.Env...)
	uid, err := id(u.Uid)
	if err != nil {
		return err
	}
	if int(uid) == os.Geteuid() {
		return nil // nothing to change, and nothing that would need root
	}
	gid, err := id(u.Gid)
	if err != nil {
		return err
	}
	credential := &syscall.Credential{Uid: uid, Gid: gid}
	groups, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("look up the groups of %s: %w", name, err)
	}
	for _, g := range groups {
		n, err := id(g)
		if err != nil {
			return err
		}
		credential.Groups = append(credential.Groups, n)
	}
	cmd.SysProcAttr.Credential = credential
	return nil
}

func id(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("the user database has the number %q: %w", text, err)
	}
	return uint32(n), nil
}
