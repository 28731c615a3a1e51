package pipeline

import (
	"strings"
	"testing"
)

// TestValidateAccess: each setting by which others come in has its rule.
func TestValidateAccess(t *testing.T) {
	checkValidate(t, map[string]validated{
		"a named token":        {func(c *Config) { c.AuthTokens = []string{"a:x", "b:y", "a:z", "w"} }, ""},
		"a name alone":         {func(c *Config) { c.AuthTokens = []string{"a:"} }, "--auth-tokens, number 1: an empty token"},
		"a strange name":       {func(c *Config) { c.AuthTokens = []string{"x", "a b:secret"} }, "--auth-tokens, number 2: what is before the colon is not a name"},
		"two words and a name": {func(c *Config) { c.AuthTokens = []string{"a:secret one"} }, "it holds white space"},
		"a token of two names": {func(c *Config) { c.AuthTokens = []string{"a:secret", "secret"} }, "number 2: the same token has another name"},
		"a second colon":       {func(c *Config) { c.AuthTokens = []string{"a:secret:c"} }, "--auth-tokens, number 1: it has a second colon"},
		"a viewer's colon":     {func(c *Config) { c.ViewTokens = []string{"v", "a:b:secret"} }, "--view-tokens, number 2: it has a second colon"},
		"a comma":              {func(c *Config) { c.ViewTokens = []string{"v:secret,b"} }, "--view-tokens, number 1: it holds a comma"},
		"one token for both":   {func(c *Config) { c.AuthTokens, c.ViewTokens = []string{"x", "a:secret"}, []string{"v", "b:secret"} }, "--view-tokens, number 2: the same token is in --auth-tokens"},
		"the same token twice": {func(c *Config) { c.AuthTokens = []string{"a:x", "a:x"} }, ""},

		"profiles, accepted": {func(c *Config) { c.Pprof, c.Listen, c.InsecureNoAuth = true, ":8080", true }, "--pprof"},
		"profiles, viewers":  {func(c *Config) { c.Pprof, c.AdminListen, c.ViewTokens = true, ":8081", []string{"v"} }, ""},
		"profiles, tokens":   {func(c *Config) { c.Pprof, c.AuthTokens = true, []string{"t"} }, "--pprof"},
		"admin, viewers":     {func(c *Config) { c.AdminListen, c.ViewTokens = ":1", []string{"v"} }, ""},
		"server, viewers":    {func(c *Config) { c.Listen, c.ViewTokens = ":1", []string{"v"} }, "--listen"},
		"an empty viewer":    {func(c *Config) { c.ViewTokens = []string{""} }, "--view-tokens, number 1: an empty token"},

		"hosts":            {func(c *Config) { c.AllowedHosts = []string{"a.example", "b."} }, ""},
		"a host's port":    {func(c *Config) { c.AllowedHosts = []string{"a:80"} }, "--allowed-hosts"},
		"origins":          {func(c *Config) { c.CORSOrigins = []string{"https://a.example"} }, ""},
		"any origin":       {func(c *Config) { c.CORSOrigins = []string{"*"} }, "--cors-origins"},
		"a base path":      {func(c *Config) { c.BasePath = "/adp/v1.2" }, ""},
		"no path":          {func(c *Config) { c.BasePath = "adp" }, "--base-path"},
		"a slash alone":    {func(c *Config) { c.BasePath = "/" }, "--base-path"},
		"a slash at last":  {func(c *Config) { c.BasePath = "/adp/" }, "--base-path"},
		"a way up":         {func(c *Config) { c.BasePath = "/adp/.." }, "--base-path"},
		"a header's end":   {func(c *Config) { c.BasePath = "/adp\r\nX: y" }, "--base-path"},
		"a long path":      {func(c *Config) { c.BasePath = "/" + strings.Repeat("a", 200) }, "--base-path"},
		"certificate, key": {func(c *Config) { c.TLSCert, c.TLSKey = "cert.pem", "key.pem" }, ""},
		"no key":           {func(c *Config) { c.TLSCert = "cert.pem" }, "--tls-cert and --tls-key"},
		"no certificate":   {func(c *Config) { c.TLSKey = "key.pem" }, "--tls-cert and --tls-key"},
		"a key at home":    {func(c *Config) { c.TLSCert, c.TLSKey = "cert.pem", "~/key.pem" }, "--tls-key: nothing replaces the ~"},
	})
}
