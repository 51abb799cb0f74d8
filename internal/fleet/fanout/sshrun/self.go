package sshrun

import (
	"fmt"
	"os/user"
)

// userName is the name of the user who runs this process: ssh takes the account,
// not $USER.
func userName() (string, error) {
	u, err := user.Current()
	if err != nil {
		return "", fmt.Errorf("find this user's name: %w", err)
	}
	return u.Username, nil
}
