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
		{Method: http.MethodGet, Path: "/debug/pprof/*", Handler: http.HandlerFunc(pprof.Index), For: Viewers},
		{Method: http.MethodGet, Path: "/debug/pprof/profile", Handler: http.HandlerFunc(pprof.Profile), For: Viewers},
		{Method: http.MethodGet, Path: "/debug/pprof/trace", Handler: http.HandlerFunc(pprof.Trace), For: Viewers},
	}
}
