import attnd.v1.AttentionServiceGrpc;
import attnd.v1.ComputeAttentionRequest;
import attnd.v1.Dtype;
import attnd.v1.ErrorDetail;
import com.google.protobuf.ByteString;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/** Computes attention with grpc-java: Attend ADDRESS MODEL INPUT OUTPUT (see the README one folder up). */
class Attend {
  static final int HEADS = 8, LENGTH = 2048, DIM = 64, SIZE = HEADS * LENGTH * DIM * 4;

  public static void main(String[] args) throws Exception {
    var tensors = ByteString.copyFrom(Files.readAllBytes(Path.of(args[2])));
    // The reply is 89 bytes over the 4 MiB that grpc-java receives by default.
    var channel = Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).maxInboundMessageSize(64 << 20).build();
    var request = ComputeAttentionRequest.newBuilder().setModel(args[1]).setBatch(1).setHeads(HEADS)
        .setQueryLength(LENGTH).setKeyLength(LENGTH).setHeadDim(DIM).setDtype(Dtype.DTYPE_FP32)
        .setQ(tensors.substring(0, SIZE)).setK(tensors.substring(SIZE, 2 * SIZE)).setV(tensors.substring(2 * SIZE, 3 * SIZE));
    var service = AttentionServiceGrpc.newBlockingStub(channel).withDeadlineAfter(30, TimeUnit.SECONDS);
    try {
      Files.write(Path.of(args[3]), service.computeAttention(request.build()).getOutput().toByteArray());
    } catch (StatusRuntimeException error) {
      System.err.printf("%s: %s%n", error.getStatus().getCode(), error.getStatus().getDescription());
      for (var any : StatusProto.fromThrowable(error).getDetailsList()) {
        var detail = any.unpack(ErrorDetail.class);
        System.err.printf("  field %s: expected %s, got %s%n", detail.getField(), detail.getExpected(), detail.getGot());
      }
      System.exit(1);
    }
    channel.shutdownNow();
  }
}
