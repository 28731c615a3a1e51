//go:build race

package local

func init() { looksApart = 60 } // a look takes many times as long
