package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"async-data-processor/pipeline"
)

// newHealthcheck is for container images that hold nothing but this binary.
func newHealthcheck() *cobra.Command {
	var url, cert string
	cmd := &cobra.Command{
		Use:     "healthcheck",
		Short:   "Exit 0 if a server or message-consumer is ready, else 1",
		Example: "  async-data-processor healthcheck --url http://localhost:8081/readyz",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := http.Client{Timeout: 3 * time.Second}
			if cert != "" {
				client.Transport = &http.Transport{TLSClientConfig: pipeline.TrustOnly(cert)}
			}
			req, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, url, nil)
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err != nil {
				return failure{error: err}
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return failure{error: fmt.Errorf("%s answers %s", url, resp.Status)}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&url, "url", "http://localhost:8080/readyz", "health endpoint to ask")
	cmd.Flags().StringVar(&cert, "tls-cert", "", "file of the certificate that the process must have, whatever its names; else the system's authorities decide")
	return cmd
}
