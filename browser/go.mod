// The tests with a real browser, in a module of their own: the product needs nothing
// of what drives one. scripts/test runs them.
module async-data-processor/browser

go 1.26.0

require (
	github.com/chromedp/cdproto v0.160.1
	github.com/chromedp/chromedp v0.23.1
	github.com/rabbitmq/amqp091-go v1.16.0
)

require github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect
