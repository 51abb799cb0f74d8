package etcd

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"path"
	"strings"
	"time"
)

// ending is the first of a member's certificates to end.
type ending struct {
	file string
	at   time.Time
}

// certificates returns whether the member has any, and which of them ends first;
// no file where none can be read. Of a member's own file the first certificate
// counts, those after it are of authorities; of a file of authorities the last to
// end, since old ones stay in it after they were replaced.
func (in *instance) certificates(ctx context.Context, s Settings) (tls bool, first ending) {
	tls = strings.HasPrefix(in.config.ClientEndpoint, "https:") || strings.HasPrefix(in.config.PeerURL, "https:")
	for _, c := range []struct {
		file string
		end  func([]byte) (time.Time, error)
	}{
		{s["cert-file"], certEnd}, {s["peer-cert-file"], certEnd}, {s["client-cert-file"], certEnd}, {s["peer-client-cert-file"], certEnd}, {in.config.TLS.Cert, certEnd},
		{s["trusted-ca-file"], authorityEnd}, {s["peer-trusted-ca-file"], authorityEnd}, {in.config.TLS.CA, authorityEnd},
	} {
		if !path.IsAbs(c.file) {
			continue
		}
		tls = true
		data, err := in.m.Files.ReadFile(ctx, c.file, maxPEM)
		if err != nil {
			continue
		}
		if end, err := c.end(data); err == nil && (first.file == "" || end.Before(first.at)) {
			first = ending{c.file, end}
		}
	}
	return tls, first
}

// certEnd returns when the first certificate of a PEM file ends.
func certEnd(data []byte) (time.Time, error) {
	cert, _, err := nextCertificate(data)
	if err != nil {
		return time.Time{}, err
	}
	return cert.NotAfter, nil
}

// authorityEnd returns when the last certificate of a PEM file to end does so.
func authorityEnd(data []byte) (time.Time, error) {
	var last time.Time
	for {
		cert, rest, err := nextCertificate(data)
		if errors.Is(err, errNoCertificate) && !last.IsZero() {
			return last, nil
		}
		if err != nil {
			return time.Time{}, err
		}
		if cert.NotAfter.After(last) {
			last = cert.NotAfter
		}
		data = rest
	}
}

var errNoCertificate = errors.New("no certificate in it (want PEM)")

func nextCertificate(data []byte) (cert *x509.Certificate, rest []byte, err error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, nil, errNoCertificate
		}
		if block.Type == "CERTIFICATE" {
			cert, err := x509.ParseCertificate(block.Bytes)
			return cert, data, err
		}
	}
}
