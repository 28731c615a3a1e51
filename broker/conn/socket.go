package conn

import (
	"net"
	"sync"
)

// Socket is a connection of the network whose Close may be called at any time, also
// more than once. It ends what waits for the connection.
type Socket struct {
	net.Conn
	once sync.Once
}

// Close closes the connection, the first time.
func (s *Socket) Close() (err error) {
	s.once.Do(func() { err = s.Conn.Close() })
	return err
}
