// Swagger UI over this service's own document; calls are made with the session's cookie or a token that is typed in.
window.addEventListener("DOMContentLoaded", () => {
  window.ui = SwaggerUIBundle({ url: "/api/openapi.json", dom_id: "#swagger-ui", deepLinking: true, docExpansion: "list", filter: true });
});
