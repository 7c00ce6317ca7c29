import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** Jobs at fixed rates, one of them so long that a shorter one comes between. */
public class Jobs {
    static void say(ScheduledExecutorService service, String name, long seconds) {
        AtomicInteger number = new AtomicInteger();
        service.scheduleAtFixedRate(
            () -> System.out.println(name + " " + number.incrementAndGet()),
            seconds, seconds, TimeUnit.SECONDS);
    }

    public static void main(String[] arguments) {
        ScheduledExecutorService service = Executors.newScheduledThreadPool(2);
        System.out.println("begun");
        say(service, "five", 5);
        say(service, "seventeen", 17);
    }
}
