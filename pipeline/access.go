package pipeline

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"async-data-processor/server"
)

// checkAccess returns what is wrong with who may reach the process.
func (c Config) checkAccess() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	const unprotected = "can be reached from other machines and nothing protects it"
	check(!exposed(c.Listen) || len(c.AuthTokens) > 0 || c.InsecureNoAuth,
		"--listen %s %s: set --auth-tokens, listen on localhost, or accept it with --insecure-no-auth", c.Listen, unprotected)
	check(!exposed(c.AdminListen) || len(c.ViewTokens) > 0 || c.InsecureNoAuth,
		"--admin-listen %s %s: set --view-tokens, listen on localhost, or accept it with --insecure-no-auth", c.AdminListen, unprotected)
	check(!c.Pprof || len(c.ViewTokens) > 0 || !exposed(c.Listen) && !exposed(c.AdminListen) && len(c.AuthTokens) == 0,
		"--pprof lets clients look into the process: set --view-tokens, or listen on localhost without --auth-tokens")
	lists := make(map[string]string)
	errs = append(errs, checkTokens("auth-tokens", c.AuthTokens, lists),
		checkTokens("view-tokens", c.ViewTokens, lists), checkTokens("admin-tokens", c.AdminTokens, lists),
		checkTokens("runner-tokens", c.RunnerTokens, lists))
	for _, name := range c.AllowedHosts {
		check(server.CheckHost(name) == nil, "--allowed-hosts: %w", server.CheckHost(name))
	}
	for _, origin := range c.CORSOrigins {
		check(server.CheckOrigin(origin) == nil, "--cors-origins: %w", server.CheckOrigin(origin))
	}
	check(server.CheckBase(c.BasePath) == nil, "--base-path: %w", server.CheckBase(c.BasePath))
	check((c.TLSCert == "") == (c.TLSKey == ""), "--tls-cert and --tls-key go together")
	return errors.Join(errs...)
}

// hosts returns the names of a process that listens at addr.
func (c Config) hosts(addr string) []string {
	host, _, _ := net.SplitHostPort(addr)
	if host == "" {
		return c.AllowedHosts
	}
	return append(slices.Clone(c.AllowedHosts), host)
}

// checkTokens returns what is wrong with a list of tokens. lists has the list of each
// token that came before, and gets these. The error quotes no token.
func checkTokens(flag string, texts []string, lists map[string]string) error {
	var errs []error
	names := make(map[string]string)
	for i, text := range texts {
		name, token, err := server.ParseToken(text)
		if err == nil {
			err = checkToken(token)
		}
		before, known := lists[token]
		switch other, again := names[token]; {
		case err != nil:
			errs = append(errs, fmt.Errorf("--%s, number %d: %w", flag, i+1, err))
		case again && other != name:
			errs = append(errs, fmt.Errorf("--%s, number %d: the same token has another name before", flag, i+1))
		case known && !again:
			errs = append(errs, fmt.Errorf("--%s, number %d: the same token is in --%s, so its holders could do more than that allows; "+
				"make another one, for example with openssl rand -hex 32", flag, i+1, before))
		default:
			names[token], lists[token] = name, flag
		}
	}
	return errors.Join(errs...)
}
