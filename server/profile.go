package server

import (
	"net/http"
	"net/http/pprof"
)

// Profiles are the profiles of the process (net/http/pprof), to be mounted. They
// show what is in its memory, and each costs work, so only those see them who may
// view. The command line, which may hold secrets, is not among them.
func Profiles() []Route {
	return []Route{
		{http.MethodGet, "/debug/pprof/*", http.HandlerFunc(pprof.Index), true},
		{http.MethodGet, "/debug/pprof/profile", http.HandlerFunc(pprof.Profile), true},
		{http.MethodGet, "/debug/pprof/trace", http.HandlerFunc(pprof.Trace), true},
	}
}
