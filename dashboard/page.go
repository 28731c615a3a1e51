// Package dashboard is the page of a node: its files, as a browser gets them.
package dashboard

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"async-data-processor/problem"
)

//go:embed page openapi.yaml
var files embed.FS

// Paths are those that Page answers, GET and HEAD. One that ends in "/*" stands for all
// below it.
func Paths() []string {
	return []string{"/", "/page/*", "/" + description}
}

// description is the description of the API (OpenAPI).
const description = "openapi.yaml"

// OpenAPI returns the description of the whole API, as it is served.
func OpenAPI() []byte {
	text, _ := files.ReadFile(description) // it is in the program
	return text
}

// policy keeps the page to what its own process serves (Content Security Policy Level 3).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// Page returns the handler of the page, and of the files that it asks for. They hold no
// data, and are the same for all clients.
//
// A browser keeps them, and asks each time whether they have changed: the next version
// of the program may have others at the same paths.
func Page() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { assets().ServeHTTP(w, r) })
}

// assets are compressed when the page is asked for first: most processes show it to nobody.
var assets = sync.OnceValue(func() site { return newSite(files) })

// site are files by the path of their URL. It is read-only.
type site map[string]*file

// file is one as it is sent: as it is, and compressed if that is shorter.
type file struct{ plain, zipped form }

type form struct {
	content   []byte
	tag, kind string // ETag and Content-Type
}

// kinds are the types of all files there may be, by the end of their name.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8", // RFC 9239
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
	".yaml": "application/yaml", // RFC 9512
}

// newSite reads the files. They are in the program, so reading them cannot fail.
func newSite(files fs.FS) site {
	s := make(site)
	zip, _ := gzip.NewWriterLevel(nil, gzip.BestCompression) // a level there is; a writer takes a megabyte
	_ = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		f := &file{plain: newForm(name, content)}
		if zipped := compress(zip, content); len(zipped) < len(content) {
			f.zipped = newForm(name, zipped)
		}
		s[place(name)] = f
		return nil
	})
	return s
}

func newForm(name string, content []byte) form {
	sum := sha256.Sum256(content)
	return form{content: content, tag: `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`, kind: kinds[path.Ext(name)]}
}

// place is the path of a file's URL.
func place(name string) string {
	if name == "page/index.html" {
		return "/"
	}
	return "/" + name
}

func compress(zip *gzip.Writer, content []byte) []byte {
	var b bytes.Buffer
	zip.Reset(&b)
	_, _ = zip.Write(content) // a buffer takes all
	_ = zip.Close()
	return b.Bytes()
}

// ServeHTTP implements http.Handler.
func (s site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := s[r.URL.Path]
	if f == nil {
		problem.Answer(w, http.StatusNotFound, "not-found", "the page has no such file", 0)
		return
	}
	header, sent := w.Header(), f.plain
	if f.zipped.content != nil {
		header.Set("Vary", "Accept-Encoding")
		if takesGzip(r.Header) {
			header.Set("Content-Encoding", "gzip")
			header.Set("Content-Length", strconv.Itoa(len(f.zipped.content)))
			sent = f.zipped
		}
	}
	header.Set("ETag", sent.tag)
	header.Set("Content-Type", sent.kind)
	header.Set("Cache-Control", "no-cache")
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(sent.content))
}

// takesGzip tells whether a client takes gzip (RFC 9110, section 12.5.3). All browsers
// name it. One that only says "*" gets the file as it is, which is right as well.
func takesGzip(h http.Header) bool {
	for coding := range strings.SplitSeq(strings.ToLower(strings.Join(h["Accept-Encoding"], ",")), ",") {
		name, weight, weighted := strings.Cut(strings.ReplaceAll(coding, " ", ""), ";q=")
		if name == "gzip" {
			q, err := strconv.ParseFloat(weight, 64)
			return !weighted || err == nil && q > 0
		}
	}
	return false
}
