package main

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	// maxObject is what one PUT takes (5 GiB). Several parts would be no way out: then the
	// client drops the condition that nothing is replaced, without a word.
	maxObject = 5 << 30
	// identityMetadata is where an object has its identity.
	identityMetadata = "Adp-Identity"
	// tries are made of a request before the run is given up; the engine of jobs begins
	// another one later.
	tries = 3
)

// location is where a store is, as the user wrote it.
type location struct{ url, endpoint, region, style string }

// store is a bucket that speaks S3.
type store struct {
	*minio.Client
	bucket, prefix string
}

var styles = map[string]minio.BucketLookupType{
	"auto": minio.BucketLookupAuto, "path": minio.BucketLookupPath, "host": minio.BucketLookupDNS,
}

// newStore reads a location. Errors quote no URL, because one may hold a password.
func newStore(at location) (*store, error) {
	to, err := url.Parse(at.url)
	if err != nil || to.Scheme != "s3" || to.Host == "" || to.User != nil || to.RawQuery != "" || to.Fragment != "" {
		return nil, errors.New("--s3: want s3://bucket/prefix")
	}
	endpoint, err := url.Parse(at.endpoint)
	if err != nil || endpoint.Scheme != "http" && endpoint.Scheme != "https" || endpoint.Host == "" || endpoint.User != nil ||
		strings.Trim(endpoint.Path, "/") != "" || endpoint.RawQuery != "" || endpoint.Fragment != "" {
		return nil, errors.New("--endpoint: want http:// or https://, the host and its port, and nothing else")
	}
	style, ok := styles[at.style]
	if !ok {
		return nil, errors.New("--style: want auto, path or host")
	}
	keys := credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}})
	if found, err := keys.GetWithContext(nil); err != nil || found.SignerType.IsAnonymous() {
		return nil, errors.New("no credentials of the store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file in AWS_SHARED_CREDENTIALS_FILE")
	}
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds: keys, Secure: endpoint.Scheme == "https", Region: at.region, BucketLookup: style, MaxRetries: tries,
	})
	if err != nil {
		return nil, fmt.Errorf("--endpoint: %w", err)
	}
	return &store{client, to.Host, strings.Trim(to.Path, "/")}, nil
}

// upload puts the result into the store, in one request that replaces nothing, and returns
// where it is. If an object has the name, it has to be of the same file.
func (s *store) upload(ctx context.Context, made *result, name string) (where string, err error) {
	key := path.Join(s.prefix, name)
	where = "s3://" + s.bucket + "/" + key
	if made.size > maxObject {
		return where, never(fmt.Errorf("%s: the result has %d bytes, one request takes %d; make smaller files with ROLL_BYTES", where, made.size, int64(maxObject)))
	}
	opts := minio.PutObjectOptions{
		ContentType:      "application/vnd.apache.parquet",
		UserMetadata:     map[string]string{identityMetadata: made.identity},
		DisableMultipart: true,
		SendContentMd5:   true,
	}
	opts.SetMatchETagExcept("*")
	if _, err = made.Seek(0, io.SeekStart); err != nil {
		return where, err
	}
	_, err = s.PutObject(ctx, s.bucket, key, made, made.size, opts)
	if err == nil {
		return where, nil
	}
	// A store that refuses early may cut the connection. Then its answer gets lost, or is that
	// of a proxy which has not got it.
	status := minio.ToErrorResponse(err).StatusCode
	refused := status == http.StatusPreconditionFailed
	if refused || status >= http.StatusInternalServerError || status == 0 && ctx.Err() == nil {
		found, wrong := s.StatObject(ctx, s.bucket, key, minio.StatObjectOptions{})
		switch {
		case wrong == nil && s.is(found, made):
			return where, nil
		case wrong == nil:
			return where, never(fmt.Errorf("%s is there and was made of something else", where))
		case refused: // it is gone by now, or the store is away
			err = later(wrong)
		}
	}
	return where, fmt.Errorf("%s: %w", where, judged(err))
}

// is tells whether an object is the result, or another result of the same file.
func (s *store) is(found minio.ObjectInfo, made *result) bool {
	if found.UserMetadata[identityMetadata] == made.identity {
		return true
	}
	// A store may keep no metadata. Where the object was put in one request and without a
	// key of its own, its tag is the MD5.
	sum := md5.New()
	_, err := io.Copy(sum, io.NewSectionReader(made, 0, made.size))
	return err == nil && found.Size == made.size && strings.EqualFold(found.ETag, hex.EncodeToString(sum.Sum(nil)))
}

// judged tells whether another try of a request is worth anything. What the store refuses is
// a failure that spends an attempt: people can mend keys and buckets.
func judged(err error) error {
	if _, ok := errors.AsType[verdict](err); ok {
		return err
	}
	switch r := minio.ToErrorResponse(err); {
	case r.StatusCode == 0, r.StatusCode >= 500,
		r.StatusCode == http.StatusRequestTimeout, r.StatusCode == http.StatusTooManyRequests,
		r.StatusCode == http.StatusConflict, // another run puts it at this moment
		r.Code == "ExpiredToken", r.Code == "RequestTimeTooSkewed":
		return later(err)
	}
	return err
}
