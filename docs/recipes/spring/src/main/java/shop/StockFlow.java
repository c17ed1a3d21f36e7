package shop;

import java.time.Duration;
import java.util.List;
import java.util.UUID;
import org.springframework.http.HttpMethod;
import org.springframework.http.HttpStatusCode;
import org.springframework.http.MediaType;
import org.springframework.http.client.JdkClientHttpRequestFactory;
import org.springframework.web.client.ResourceAccessException;
import org.springframework.web.client.RestClient;

/** Orders for one buyer: the same key until there is an answer, refusals by their code. */
public class StockFlow {
    /** A line of an order. */
    public record Line(long productId, int quantity, Long unitPrice) {}

    /** An order as it is asked for. */
    public record OrderIn(List<Line> orderProducts, long totalAmount, String deliveryType) {}

    /** An order as it is answered; ids are texts. */
    public record Order(String orderId, String orderStatus, long totalAmount) {}

    /** What an error says: RFC 9457, with a stable code. */
    public record Problem(String code, String detail, int status) {}

    /** The answer is no, and asking again will not change it. */
    public static class Refused extends RuntimeException {
        public final transient Problem problem;

        Refused(Problem problem) {
            super(problem.code() + ": " + problem.detail());
            this.problem = problem;
        }
    }

    /** The answer is not yet: 429, 503, or a first attempt that is under way. */
    private static class Passing extends Refused {
        Passing(Problem problem) {
            super(problem);
        }
    }

    private static final int ATTEMPTS = 5;
    private final RestClient http;

    public StockFlow(String url, String token) {
        var requests = new JdkClientHttpRequestFactory();
        requests.setReadTimeout(Duration.ofSeconds(10));
        http = RestClient.builder()
                .baseUrl(url)
                .requestFactory(requests)
                .defaultHeader("Authorization", "Bearer " + token)
                .defaultStatusHandler(HttpStatusCode::isError, (request, response) -> {
                    var problem = new com.fasterxml.jackson.databind.ObjectMapper()
                            .configure(com.fasterxml.jackson.databind.DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false)
                            .readValue(response.getBody(), Problem.class);
                    var isPassing = problem.status() == 429 || problem.status() == 503
                            || problem.code().equals("REQUEST_IN_PROGRESS");
                    throw isPassing ? new Passing(problem) : new Refused(problem);
                })
                .build();
    }

    public Order place(OrderIn order) {
        return call(HttpMethod.POST, "/api/redis/orders", order);
    }

    public Order cancel(String orderId) {
        return call(HttpMethod.PATCH, "/api/redis/orders/" + orderId + "/cancel", java.util.Map.of());
    }

    /** Sends a request until there is an answer; under a key that is safe, whatever became of the first attempt. */
    private Order call(HttpMethod method, String path, Object body) {
        var key = UUID.randomUUID().toString();
        for (var attempt = 1; ; attempt++) {
            try {
                return http.method(method)
                        .uri(path)
                        .header("Idempotency-Key", key)
                        .contentType(MediaType.APPLICATION_JSON)
                        .body(body)
                        .retrieve()
                        .body(Order.class);
            } catch (Passing | ResourceAccessException failure) {
                if (attempt == ATTEMPTS) {
                    throw failure;
                }
                try {
                    Thread.sleep(1000);
                } catch (InterruptedException interrupted) {
                    Thread.currentThread().interrupt();
                    throw failure;
                }
            }
        }
    }

    public static void main(String[] arguments) {
        var shop = new StockFlow(System.getenv("SHOP_URL"), System.getenv("TOKEN"));
        var order = shop.place(new OrderIn(List.of(new Line(1, 2, null)), 2000, "ONLINE"));
        System.out.println(order.orderId() + " " + shop.cancel(order.orderId()).orderStatus());
        try {
            shop.place(new OrderIn(List.of(new Line(1, 1_000_000, null)), 1_000_000_000, "ONLINE"));
        } catch (Refused refused) {
            System.out.println("refused: " + refused.problem.code());
        }
    }
}
