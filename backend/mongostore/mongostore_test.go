package mongostore

import (
	"cmp"
	"context"
	"io"
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/sessionfilestore/filestore/internal/storetest"
)

func TestReadme(t *testing.T) { storetest.Readme(t) }

// An error says that nothing was done only if that is sure, and it shows what the server calls it and nothing else.
func TestErrors(t *testing.T) {
	const secret = "dup key: { _id: secret }"
	again := []string{"RetryableWriteError"}
	taken := mongo.WriteError{Code: 11000, Message: secret}
	concern := &mongo.WriteConcernError{Name: "WriteConcernTimeout", Code: 64, Message: secret}
	for _, tt := range []struct {
		err  error
		want string // "" = as it is
	}{
		{mongo.CommandError{Code: 13, Name: "Unauthorized", Message: secret}, "the server refuses: Unauthorized"},
		{mongo.CommandError{Code: 13, Message: secret}, "the server refuses: 13"},
		{mongo.CommandError{Code: 11602, Name: "InterruptedDueToReplStateChange", Message: secret, Labels: again}, "the server answers: InterruptedDueToReplStateChange"},
		{mongo.CommandError{Code: 50, Name: "MaxTimeMSExpired", Message: secret}, "the server answers: MaxTimeMSExpired"},
		{mongo.WriteException{WriteErrors: mongo.WriteErrors{taken}}, "the server refuses: 11000"},
		{mongo.WriteException{WriteErrors: mongo.WriteErrors{taken}, WriteConcernError: concern}, "the server answers: WriteConcernTimeout"},
		{mongo.WriteException{WriteConcernError: concern}, "the server answers: WriteConcernTimeout"},
		{mongo.BulkWriteException{WriteErrors: []mongo.BulkWriteError{{WriteError: taken}}}, "the server refuses: 11000"},
		{mongo.BulkWriteException{WriteConcernError: concern}, "the server answers: WriteConcernTimeout"},
		{mongo.CommandError{Message: "no connection", Labels: []string{"NetworkError"}}, ""},
		{io.ErrUnexpectedEOF, ""},
		{context.DeadlineExceeded, ""},
	} {
		if got, want := whole(tt.err), cmp.Or(tt.want, tt.err.Error()); got.Error() != want {
			t.Errorf("%v becomes %v, want %s", tt.err, got, want)
		}
	}
	if err := whole(nil); err != nil {
		t.Errorf("nil becomes %v", err)
	}
}
